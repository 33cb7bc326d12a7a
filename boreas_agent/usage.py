"""What apps use of the machine, for status: processor time and memory, read from ``/proc`` and cgroups now and then.

Nobody who asks for the status waits for it, and nothing is decided by it. An instance is known by its main process; where
it has cgroups of its own these tell of all its processes, dead ones included, else the living ones in sight are summed up.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from boreas_agent.aside import Aside
from boreas_agent.clock import Clock

SAMPLE_SECONDS = 30.0
DEADLINE_SECONDS = 10.0
_OWN = re.compile(r"boreas\.slice/(?!.*/keeper$)|[0-9a-f]{64}")
"""A cgroup of an instance alone: made by this agent, or named after a container by the engine; not that of the keepers."""
_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Usage(Struct, frozen=True):
    """Of one app at one moment. ``cpu_percent``: of one processor, since the sample before; None where there was none."""

    at: datetime
    memory_bytes: int
    cpu_seconds: float
    cpu_percent: float | None = None


class Populated(Protocol):
    """Who knows the main processes of what runs."""

    def pids(self) -> Mapping[str, Sequence[int]]:
        """By app, as far as they can be seen from here; from memory, so that asking costs nothing."""


class UsageWatch:
    """Samples in the background. ``apps`` is what was last seen, a new mapping after each look."""

    def __init__(self, sources: Iterable[Populated], clock: Clock) -> None:
        self._sources = tuple(sources)
        self._clock = clock
        self._aside = Aside("usage-sample")
        self._before: tuple[float, Mapping[int, float]] = (0.0, {})
        self._mounts: Mapping[str, Path] = {}
        self.apps: Mapping[str, Usage] = {}

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            with suppress(OSError, RuntimeError):  # late (TimeoutError), or another one still under way: the next look is soon
                await self.look()
            await asyncio.sleep(SAMPLE_SECONDS)

    async def look(self) -> None:
        """One sample of everything that runs."""
        pids: dict[str, list[int]] = {}
        for source in self._sources:
            for app, some in source.pids().items():
                pids.setdefault(app, []).extend(some)
        at = self._clock.now()
        now, measured = await self._aside.run(lambda: self._measure({pid for some in pids.values() for pid in some}), DEADLINE_SECONDS)
        since, before = self._before
        self._before = (now, {pid: one[0] for pid, one in measured.items()})
        self.apps = {
            app: _sum(at, [(pid, *measured[pid]) for pid in some if pid in measured], before, now - since) for app, some in pids.items()
        }

    def _measure(self, pids: Iterable[int]) -> tuple[float, dict[int, tuple[float, int]]]:
        """When it was done, in boot seconds, and what each process uses."""
        self._mounts = self._mounts or hierarchies(Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace"))
        now, found = self._clock.boottime(), dict[int, tuple[float, int]]()
        for pid in pids:
            with suppress(OSError, ValueError, IndexError):  # it has just ended
                found[pid] = measure(Path("/proc") / str(pid), self._mounts)
        return now, found


def _sum(at: datetime, measured: Sequence[tuple[int, float, int]], before: Mapping[int, float], seconds: float) -> Usage:
    known = [(cpu, before[pid]) for pid, cpu, _ in measured if pid in before]
    percent = round(100 * sum(now - then for now, then in known) / seconds, 1) if known and seconds > 0 else None
    return Usage(at, sum(memory for _, _, memory in measured), round(sum(cpu for _, cpu, _ in measured), 3), percent)


def hierarchies(mounts: str) -> dict[str, Path]:
    """Where each controller of version 1 is mounted, and under the empty name version 2."""
    found: dict[str, Path] = {}
    for row in (line.split() for line in mounts.splitlines()):
        if row[2] == "cgroup2":
            found.setdefault("", Path(row[1]))
        elif row[2] == "cgroup":
            for name in row[3].split(","):
                found.setdefault(name, Path(row[1]))
    return found


def measure(process: Path, mounts: Mapping[str, Path]) -> tuple[float, int]:
    """Processor seconds and bytes of memory of an instance, by its main ``process`` in ``/proc``. Raises OSError where it is gone."""
    groups = own_groups((process / "cgroup").read_text(encoding="utf-8", errors="replace"), mounts)
    processes = [process]
    if "" in groups:
        processes = [process.parent / pid for pid in (groups[""] / "cgroup.procs").read_text(encoding="ascii").split()]
    cpu = _cpu_of_group(groups)
    memory = _memory_of_group(groups)
    return (
        sum(map(_cpu_of_process, processes)) if cpu is None else cpu,
        sum(map(_memory_of_process, processes)) if memory is None else memory,
    )


def own_groups(text: str, mounts: Mapping[str, Path]) -> dict[str, Path]:
    """The folders of the cgroups (``/proc/PID/cgroup``) that are the instance's alone, by controller."""
    found: dict[str, Path] = {}
    for line in text.splitlines():
        _, names, path = line.split(":", 2)
        if _OWN.search(path):
            found |= {name: mounts[name] / path.lstrip("/") for name in names.split(",") if name in mounts}
    return found


def _cpu_of_group(groups: Mapping[str, Path]) -> float | None:
    with suppress(OSError, KeyError):
        return int((groups["cpuacct"] / "cpuacct.usage").read_text(encoding="ascii")) / 1e9
    with suppress(OSError, KeyError):
        return _table(groups[""] / "cpu.stat")["usage_usec"] / 1e6
    return None


def _memory_of_group(groups: Mapping[str, Path]) -> int | None:
    """What cannot be taken back without swapping, as kubelet counts it."""
    for name, current, idle in (("memory", "memory.usage_in_bytes", "total_inactive_file"), ("", "memory.current", "inactive_file")):
        with suppress(OSError, KeyError):
            used = int((groups[name] / current).read_text(encoding="ascii"))
            return max(0, used - _table(groups[name] / "memory.stat").get(idle, 0))
    return None


def _table(file: Path) -> dict[str, int]:
    rows = (line.split() for line in file.read_text(encoding="ascii").splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) == 2}


def _cpu_of_process(process: Path) -> float:
    with suppress(OSError):
        fields = (process / "stat").read_bytes().rpartition(b")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICK
    return 0.0


def _memory_of_process(process: Path) -> int:
    with suppress(OSError):
        return int((process / "statm").read_bytes().split()[1]) * _PAGE
    return 0
