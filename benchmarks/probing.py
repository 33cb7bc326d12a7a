"""What probes cost, and whether one whose target hangs delays the others."""

from __future__ import annotations

import asyncio
import json
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from benchmarks.agent import agent
from benchmarks.footprint import processor_seconds
from benchmarks.report import Bound, Line, amount
from benchmarks.wire import Connection
from benchmarks.workspace import workspace
from tests.waiting import eventually

PROBES = 300
APPS = 30
HANGING = 8
SECONDS = 20.0
SETTLE_SECONDS = 120.0
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


@dataclass(slots=True)
class _Target:
    """A server that notes when it was asked for what; paths that begin with ``/hang`` are never answered."""

    port: int = 0
    asked: dict[str, list[float]] = field(default_factory=dict)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            request = await reader.readuntil(b"\r\n\r\n")
            path = request.split()[1].decode()
            self.asked.setdefault(path, []).append(time.monotonic())
            if path.startswith("/hang"):
                await reader.read()
            else:
                writer.write(_ANSWER)
        writer.close()


@contextmanager
def _target() -> Iterator[_Target]:
    """In a thread of its own, so that the benchmark may wait."""
    target, loop = _Target(), asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(target.answer, "127.0.0.1", 0, backlog=1024))
    target.port = server.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever, name="probed", daemon=True)
    thread.start()
    try:
        yield target
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0.1))
        loop.close()


def cost() -> Sequence[Line]:
    """Processor time of the agent alone while it asks 300 ports a second."""
    with workspace() as folder, _target() as target, agent(folder) as node, Connection(node.port) as connection:
        _apply(connection, "probed", target.port, "/", replicas=PROBES)
        eventually(lambda: _level(connection, "probed") == 100, SETTLE_SECONDS)
        before, began, asked = processor_seconds(node.pid), time.monotonic(), len(target.asked["/"])
        time.sleep(SECONDS)
        spent, wall = processor_seconds(node.pid) - before, time.monotonic() - began
        each = (len(target.asked["/"]) - asked) / wall
    detail = f"{each:.0f} probes/s, {spent / (each * wall) * 1e6:.0f} µs each"
    return (amount(f"{PROBES} http probes at 1 s, share of one core", spent / wall * 100, "%", Bound(15), detail),)


def fairness() -> Sequence[Line]:
    """How much later than a second after the last question a target is asked again, while others hang for 10 s at a time."""
    with workspace() as folder, _target() as target, agent(folder) as node, Connection(node.port) as connection:
        for number in range(APPS):
            _apply(connection, f"good-{number}", target.port, f"/{number}")
        for number in range(HANGING):
            _apply(connection, f"hanging-{number}", target.port, f"/hang{number}", timeout_seconds=10)
        eventually(lambda: all(_level(connection, f"good-{number}") == 100 for number in range(APPS)), SETTLE_SECONDS)
        began = time.monotonic()
        time.sleep(SECONDS)
    late = [
        max(0.0, after - before - 1.0)
        for path, times in target.asked.items()
        if not path.startswith("/hang")
        for before, after in pairwise(at for at in times if at >= began)
    ]
    worst = statistics.quantiles(late, n=100)[98] * 1000
    detail = f"{len(late)} questions of {APPS} apps beside {HANGING} that hang; median {statistics.median(late) * 1000:.1f} ms"
    return (amount("delay of a probe while others hang, p99", worst, "ms", Bound(50), detail),)


def _apply(connection: Connection, app: str, port: int, path: str, replicas: int = 1, **numbers: Any) -> None:
    probe = {"http": {"port": port, "path": path}, "interval_seconds": 1, **numbers}
    pkg = {"type": "binary", "command": ["/bin/sleep", "1000000"], "replicas": replicas, "health": {"readiness": probe}}
    pkg |= {"rollout": {"min_healthy_seconds": 1}, "stop": {"grace_seconds": 1}}
    status, answer = connection.ask("POST", "/v1/apply", json.dumps({"app": app, "version": "v1", "pkg": pkg}).encode())
    if status != 200:
        raise RuntimeError(f"the agent answered {status}: {answer}")


def _level(connection: Connection, app: str) -> int:
    return int(connection.ask("GET", f"/v1/status/{app}")[1]["healthy"]["level"])
