"""What the agent and its helpers cost while nothing happens: memory and processor time, with many apps."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.agent import agent
from benchmarks.first_instruction import reporter
from benchmarks.report import Bound, Line, amount
from benchmarks.requests import keep_running
from benchmarks.wire import Connection
from benchmarks.workspace import workspace
from tests.waiting import eventually

APPS = 100
IDLE_SECONDS = 60.0
SETTLE_SECONDS = 60.0
"""How long it may take until every app is proven (``min_healthy_seconds`` is 10)."""
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class _Resting:
    """Processes of an agent all of whose apps are healthy: its own, and those that are neither it nor an app."""

    agent: int
    helpers: frozenset[int]


def memory() -> Sequence[Line]:
    """Proportional set size (PSS): what would be free without these processes."""
    with _resting() as processes:
        ours = _pss(processes.agent)
        theirs = {pid: _pss(pid) for pid in processes.helpers}
    allowed = 16 + APPS * 100 / 1024
    each = " + ".join(f"{size:.1f}" for size in sorted(theirs.values(), reverse=True))
    return (
        amount(f"memory of the agent with {APPS} process apps", ours, "MiB", Bound(120), "PSS"),
        amount(f"memory of its {len(theirs)} helpers", sum(theirs.values()), "MiB", Bound(allowed), f"PSS {each}"),
    )


def idle() -> Sequence[Line]:
    """Processor time over a minute in which nobody asks for anything."""
    with _resting() as processes:
        every = (processes.agent, *processes.helpers)
        before, began = {pid: processor_seconds(pid) for pid in every}, time.monotonic()
        time.sleep(IDLE_SECONDS)
        wall = time.monotonic() - began
        spent = {pid: (processor_seconds(pid) - before[pid]) / wall * 100 for pid in every}
    ours = spent.pop(processes.agent)
    theirs = sum(spent.values())
    detail = f"agent {ours:.2f} %, helpers {theirs:.2f} %, over {wall:.0f} s"
    return (amount(f"idle with {APPS} process apps, share of one core", ours + theirs, "%", Bound(0.5), detail),)


@contextmanager
def _resting() -> Iterator[_Resting]:
    with workspace() as folder, reporter(folder) as reports, agent(folder, str(folder / "no-engine.sock")) as node:
        with Connection(node.port) as connection:
            for number in range(APPS):
                connection.send(keep_running(f"app-{number}", reports.command(f"app-{number}")))
                connection.receive()
            apps = {reports.any().pid for _ in range(APPS)}
            eventually(lambda: connection.ask("GET", "/v1/status")[1]["healthy"]["level"] == 100, SETTLE_SECONDS)
        yield _Resting(node.pid, _helpers(node.pid, apps))


def _helpers(agent_pid: int, apps: set[int]) -> frozenset[int]:
    """The parents of the apps, and whatever else these or the agent have as children."""
    parents = {
        int(entry.name): _stat(int(entry.name))[1] for entry in Path("/proc").iterdir() if entry.name.isdigit() and _stat(int(entry.name))
    }
    keepers = {int(parents[app]) for app in apps} - {agent_pid}
    children = {pid for pid, parent in parents.items() if int(parent) in keepers | {agent_pid}}
    return frozenset((keepers | children) - apps)


def processor_seconds(pid: int) -> float:
    """User and system time of the process and of its children that have ended (``proc_pid_stat(5)``, fields 14 to 17)."""
    return sum(int(ticks) for ticks in _stat(pid)[11:15]) / _TICKS


def _stat(pid: int) -> list[str]:
    """The fields from the third on, the state; none where the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _pss(pid: int) -> float:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    return int(rollup.partition("\nPss:")[2].split()[0]) / 1024
