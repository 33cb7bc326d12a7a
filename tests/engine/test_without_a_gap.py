"""``start-first`` as its clients see it: at every moment somebody answers."""

from __future__ import annotations

import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.engine.engine import Engine
from tests.engine.node import running_node
from tests.engine.test_scenarios_docker import containers
from tests.waiting import eventually

EVERY_SECONDS = 0.005
ROLLOUT = {"strategy": "start-first", "min_healthy_seconds": 0.3}
OFTEN = {"interval_seconds": 0.1, "timeout_seconds": 1, "failure_threshold": 300}


class Client:
    """Asks ``everybody`` each 5 ms until one answers, as a load balancer would. ``heard``: when, and by which version."""

    def __init__(self, everybody: Callable[[], Iterable[Callable[[], str]]]) -> None:
        self.heard: list[tuple[float, str]] = []
        self.gaps: list[float] = []
        self._everybody = everybody
        self._over = threading.Event()

    def ask_on(self) -> None:
        """Until it is over."""
        while not self._over.wait(EVERY_SECONDS):
            version = next((said for ask in self._everybody() if (said := ask())), "")
            self.heard.append((time.monotonic(), version))
            if not version:
                self.gaps.append(time.monotonic())

    def end(self) -> None:
        """Ask no more."""
        self._over.set()

    @property
    def versions(self) -> list[str]:
        """The versions that answered, in the order in which each did first."""
        return list(dict.fromkeys(version for _, version in self.heard))


@contextmanager
def asking(client: Client) -> Iterator[Client]:
    """A client that asks while the block runs."""
    thread = threading.Thread(target=client.ask_on, daemon=True)
    thread.start()
    try:
        yield client
    finally:
        client.end()
        thread.join(20)


def said_by(family: int, address: Any, request: bytes = b"") -> str:
    """What a server answers, or nothing."""
    with suppress(OSError), socket.socket(family) as asked:
        asked.settimeout(2)
        asked.connect(address)
        if request:  # who says at once what there is to say may have hung up by now
            asked.sendall(request)
        return b"".join(iter(lambda: asked.recv(1000), b"")).decode().rpartition("\n")[2]
    return ""


@pytest.mark.parametrize("replicas", [1, 3])
def test_start_first_leaves_a_client_of_processes_no_moment_without_an_answer(tmp_path: Path, replicas: int) -> None:
    with running_node(tmp_path / "node") as node, tempfile.TemporaryDirectory(prefix="boreas-") as place:  # short: a socket's path
        command = [sys.executable, "-I", "-S", str(Path(__file__).with_name("serving.py")), place]
        ready = {"exec": {"command": ["/bin/sh", "-c", f"test -e {place}/$BOREAS_REVISION.$BOREAS_REPLICA.ready"]}, **OFTEN}
        pkg = {"type": "binary", "command": command, "replicas": replicas, "rollout": ROLLOUT, "health": {"readiness": ready}}

        def everybody() -> list[Callable[[], str]]:
            sockets = [path for path in Path(place).iterdir() if path.suffix != ".ready"]
            return [lambda path=path: said_by(socket.AF_UNIX, str(path)) for path in sockets]

        _roll(node, pkg, Client(everybody))


@pytest.mark.docker
@pytest.mark.parametrize("replicas", [1, 2])
def test_start_first_leaves_a_client_of_containers_no_moment_without_an_answer(tmp_path: Path, clean_engine: Engine, replicas: int) -> None:
    serve = "sleep 0.2; mkdir /tmp/www; echo -n $BOREAS > /tmp/www/is; exec httpd -f -p 8080 -h /tmp/www"
    ready = {"http": {"port": 8080, "path": "/is"}, **OFTEN}
    pkg = {
        "type": "docker",
        "image": clean_engine.image,
        "command": ["/bin/sh", "-c", serve],
        "replicas": replicas,
        "rollout": ROLLOUT,
        "health": {"readiness": ready},
        "stop": {"grace_seconds": 0.2},
    }
    request, answered = b"GET /is HTTP/1.0\r\n\r\n", list[str]()

    def everybody() -> Iterator[Callable[[], str]]:
        """Whoever answered last comes first; the engine is asked who there is where that one does not."""
        if answered:
            yield lambda: said_by(socket.AF_INET, (answered[0], 8080), request)
        answered.clear()
        for one in containers(clean_engine, "web"):
            address = one["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
            if one["State"] == "running" and address:
                answered[:] = [address]
                yield lambda: said_by(socket.AF_INET, (answered[0], 8080), request)

    with running_node(tmp_path / "node", clean_engine.socket) as node:
        _roll(node, pkg, Client(everybody), lambda version: {"environment": {"BOREAS": version}})


def _roll(node: Any, pkg: dict[str, Any], client: Client, more: Callable[[str], dict[str, Any]] = lambda _: {}) -> None:
    """From v1 to v2 to v3, with a client that asks all the while."""
    node.apply("web", "v1", **pkg | more("v1"))
    node.reaches("web", "running")
    with asking(client):
        for revision, version in enumerate(("v2", "v3"), start=2):
            node.apply("web", version, **pkg | more(version))
            node.reaches("web", "running", revision=revision)
            eventually(lambda version=version: client.heard[-1:] and client.heard[-1][1] == version)
    longest = max(after - before for (before, _), (after, _) in zip(client.heard, client.heard[1:], strict=False))
    print(f"asked {len(client.heard)} times, the longest pause between two answers was {longest * 1000:.0f} ms")
    assert client.gaps == []
    assert client.versions == ["v1", "v2", "v3"]
