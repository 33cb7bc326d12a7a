"""How soon a program runs: after it was asked for, and after its predecessor was killed; beside a bare loop."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import IO

from benchmarks.agent import agent
from benchmarks.first_instruction import Reporter, reporter
from benchmarks.report import Bound, Line, amount, compared, milliseconds
from benchmarks.requests import keep_running
from benchmarks.sampling import in_turn
from benchmarks.wire import Connection
from benchmarks.workspace import pidfd_loop, workspace

SAMPLES = 100
PAUSE = 0.05
BURST = 100


@dataclass(slots=True)
class Kept:
    """A program that somebody keeps running: killing it gives a sample."""

    reports: Reporter
    tag: str
    pid: int

    def kill(self) -> float:
        """Seconds from the kill to its successor's first instruction."""
        began = time.monotonic_ns()
        os.kill(self.pid, signal.SIGKILL)
        successor = self.reports.next(self.tag)
        self.pid = successor.pid
        return (successor.at - began) / 1e9


@dataclass(slots=True)
class _Loop:
    """The reference at its work: killing what it keeps gives a sample of its starts."""

    reports: Reporter
    began: IO[str]
    pid: int = 0

    def start(self) -> float:
        """Seconds from when the loop began a start to the new process's first instruction."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
        started = self.reports.next("loop")
        self.pid = started.pid
        return (started.at - int(self.began.readline())) / 1e9


@dataclass(slots=True)
class _Starts:
    """Where an agent is asked for one more app; each request gives a sample."""

    connection: Connection
    reports: Reporter
    numbers: count[int] = field(default_factory=count)

    def ask(self) -> float:
        """Seconds from sending the request to the new process's first instruction."""
        app = f"app-{next(self.numbers)}"
        request = keep_running(app, self.reports.command(app))
        began = time.monotonic_ns()
        self.connection.send(request)
        started = self.reports.next(app).at
        status, answer = self.connection.receive()
        if status != 200:
            raise RuntimeError(f"cannot apply {app}: {answer[:500]!r}")
        return (started - began) / 1e9


def restart() -> Sequence[Line]:
    """kill -9, again and again."""
    with workspace() as folder, reporter(folder) as reports, agent(folder) as node, Connection(node.port) as connection:
        connection.send(keep_running("agent", reports.command("agent")))
        ours = Kept(reports, "agent", reports.next("agent").pid)
        with pidfd_loop(reports.command("loop")):
            bare = Kept(reports, "loop", reports.next("loop").pid)
            killed, respawned = in_turn(SAMPLES, ours.kill, bare.kill, pause=PAUSE)
    return (compared("process killed → its successor's first instruction", killed, respawned, Bound(3), milliseconds),)


def start() -> Sequence[Line]:
    """Fresh apps over a kept-alive connection."""
    with workspace() as folder, reporter(folder) as reports, agent(folder) as node, Connection(node.port) as connection:
        ours = _Starts(connection, reports)
        with pidfd_loop(reports.command("loop")) as loop:
            assert loop.stdout is not None
            bare = _Loop(reports, loop.stdout)
            bare.start()  # the first of its starts waits for nobody
            applied, spawned = in_turn(SAMPLES, ours.ask, bare.start, pause=PAUSE)
    return (compared("apply over HTTP → the new process's first instruction", applied, spawned, Bound(5), milliseconds),)


def burst() -> Sequence[Line]:
    """Apps applied one after another, as fast as the answers come."""
    with workspace() as folder, reporter(folder) as reports, agent(folder) as node, Connection(node.port) as connection:
        requests = [keep_running(f"app-{number}", reports.command(f"app-{number}")) for number in range(BURST)]
        began = time.monotonic_ns()
        for request in requests:
            connection.send(request)
            connection.receive()
        answered = (time.monotonic_ns() - began) / 1e9
        starts = sorted((reports.any() for _ in range(BURST)), key=lambda one: one.at)
    first, last = ((started.at - began) / 1e9 for started in (starts[0], starts[-1]))
    detail = f"all answered after {answered:.2f} s, the first running after {first:.3f} s"
    return (amount(f"{BURST} binary apps applied one after another → all running", last, "s", Bound(1.5), detail),)
