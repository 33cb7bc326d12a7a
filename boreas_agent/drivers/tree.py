"""The whole process tree of one run: its main process and everything that came of it, daemons included.

With a cgroup the tree is what the cgroup holds. Without one it is the main process's session, its process group,
and every process that carries the instance's mark in its environment; a daemon that wiped that is not found.
"""

from __future__ import annotations

import signal
from pathlib import Path

from msgspec import Struct

from boreas_agent.drivers import cgroup, procfs
from boreas_agent.drivers.runs import Claim

MARK = "BOREAS_INSTANCE"


class Tree(Struct, frozen=True):
    """``mark`` is the instance's ``NAME=value``; ``boot`` the current boot: on another one nothing is left."""

    claim: Claim
    boot: str
    mark: str

    def members(self) -> list[procfs.Stat]:
        """Every living process of the tree, the main one first if it lives."""
        if self.claim.boot != self.boot:
            return []
        main = procfs.living(self.claim.pid, self.claim.start)
        others = self._of_cgroup(Path(self.claim.cgroup)) if self.claim.cgroup else self._of_session(main)
        return ([main] if main else []) + [found for found in others if not (main and found.pid == main.pid)]

    def _of_cgroup(self, path: Path) -> list[procfs.Stat]:
        found = [procfs.stat(pid) for pid in cgroup.members(path)]
        return [process for process in found if process and not process.dead]

    def _of_session(self, main: procfs.Stat | None) -> list[procfs.Stat]:
        return [process for process in procfs.processes() if self._ours(process, main)]

    def _ours(self, process: procfs.Stat, main: procfs.Stat | None) -> bool:
        """A session's number is certain only while its leader lives; afterwards it may be a stranger's."""
        if main and main.pid in {process.session, process.group}:
            return True
        return process.start >= self.claim.start and procfs.has_environment(process.pid, self.mark)

    def signal(self, number: int) -> None:
        """Signal the main process and its process group; what is left of them where the main process is gone."""
        members = self.members()
        main = members[0] if members and members[0].pid == self.claim.pid else None
        for process in members:
            if main is None or process.group == main.pid:
                procfs.send(process, number)

    def tell(self, number: int) -> None:
        """Signal the main process alone."""
        main = procfs.living(self.claim.pid, self.claim.start) if self.claim.boot == self.boot else None
        if main:
            procfs.send(main, number)

    def kill(self) -> None:
        """SIGKILL for all. A process that forks meanwhile may escape: repeat until there are no members."""
        if self.claim.boot == self.boot and self.claim.cgroup:
            cgroup.kill(Path(self.claim.cgroup))
        for process in self.members():
            procfs.send(process, signal.SIGKILL)
