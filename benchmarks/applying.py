"""What it costs to record desired state durably, beside only reading and validating the same requests."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import count

from benchmarks.agent import agent
from benchmarks.references.two_commits import connect, two_commits
from benchmarks.report import Bound, Line, compared, milliseconds, rate
from benchmarks.requests import new_versions
from benchmarks.sampling import in_turn
from benchmarks.wire import Connection
from benchmarks.workspace import validating_handler, workspace

CONNECTIONS = 64
ROUND_SECONDS = 2.0
ROUNDS = 9
SAMPLES = 300


def throughput() -> Sequence[Line]:
    """64 clients at once."""
    with workspace() as folder, agent(folder) as node, validating_handler() as port:
        runs = count()
        ours, bare = in_turn(ROUNDS, partial(_load, node.port, runs), partial(_load, port, runs), pause=0.5)
    return (compared(f"apply, {CONNECTIONS} connections, every answer durable", ours, bare, Bound(0.5, least=True), rate),)


def latency() -> Sequence[Line]:
    """One client at a time. The reference is the sum of its two parts, each measured beside the agent."""
    with (
        workspace() as folder,
        agent(folder) as node,
        validating_handler() as port,
        Connection(node.port) as ours,
        Connection(port) as bare,
    ):
        database = connect(folder / "reference.db")
        spec = json.dumps({"pkg": next(new_versions("spec", "1")).decode()})
        numbers = count()
        try:
            sides = (
                partial(_timed, ours, new_versions("one", "agent")),
                partial(_timed, bare, new_versions("one", "bare")),
                lambda: two_commits(database, next(numbers), spec),
            )
            recorded, validated, committed = in_turn(SAMPLES, *sides, pause=0.01)
        finally:
            database.close()
    floor = [one + two for one, two in zip(sorted(validated), sorted(committed), strict=True)]  # quantile by quantile
    return (compared("apply, one connection", recorded, floor, Bound(1.5), milliseconds),)


def _load(port: int, runs: Iterator[int]) -> float:
    command = [sys.executable, "-m", "benchmarks.load", str(port), str(CONNECTIONS), str(ROUND_SECONDS), str(next(runs))]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def _timed(connection: Connection, requests: Iterator[bytes]) -> float:
    request = next(requests)
    began = time.perf_counter()
    connection.send(request)
    status, answer = connection.receive()
    spent = time.perf_counter() - began
    if status != 200:
        raise RuntimeError(f"expected a new revision, but the server answered {status} {answer[:500]!r}")
    return spent
