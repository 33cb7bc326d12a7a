"""How processes end: the signal, the grace, SIGKILL to what is left, and then nothing of them stays.

A run is ended as a whole tree, whatever it started; that its main process has gone is not enough.
"""

from __future__ import annotations

import asyncio
import signal as signals
from collections.abc import Awaitable, Callable
from typing import Any

from msgspec import Struct

from boreas_agent.clock import Clock
from boreas_agent.drivers import folders, launch
from boreas_agent.drivers.runs import Layout
from boreas_agent.drivers.tracked import Tracked
from boreas_agent.drivers.tree import MARK, Tree
from boreas_agent.drivers.watch import Watch
from boreas_agent.errors import Transient
from boreas_agent.model import Exit, Observed

KILL_SECONDS = 10.0
"""How long a killed process may take to disappear; one that waits for a dead disk takes for ever."""


class Ending(Struct, frozen=True):
    """Of the instances that ``watch`` knows; whoever calls holds the instance's lock. ``remove_groups``: delete the cgroups of one."""

    layout: Layout
    identity: str
    clock: Clock
    watch: Watch
    in_thread: Callable[..., Awaitable[Any]]
    remove_groups: Callable[[Tracked], None]

    def tree(self, tracked: Tracked | None) -> Tree | None:
        """The processes of the current run; None where none was ever started."""
        claim = tracked.newest.claim if tracked and tracked.newest else None
        if tracked is None or claim is None:
            return None
        return Tree(claim, self.clock.boot_id, f"{MARK}={launch.mark_of(self.identity, tracked.carried.name)}")

    async def stop(self, seen: Observed, signal: str, grace_seconds: float) -> Exit | None:
        """How the run ended; None where it had already. Raises Transient where it does not die."""
        tracked = self.watch.get(seen.name)
        tree = self.tree(tracked)
        if tracked is None or tree is None:
            return None
        await self.watch.check((tracked,))
        if not tracked.running:
            await self.kill(tracked)
            return None
        await self.in_thread(tree.signal, signals.Signals[signal])
        await self.in_thread(tree.signal, signals.SIGCONT)
        if not await self._gone(tree, tracked, grace_seconds):
            await self.kill(tracked)
        await self.watch.check((tracked,))
        return tracked.exits()[-1] if not tracked.running else None

    async def _gone(self, tree: Tree, tracked: Tracked, seconds: float) -> bool:
        """Whether the whole tree ends in time."""
        loop = asyncio.get_running_loop()
        deadline, pause = loop.time() + seconds, 0.002
        if tracked.running:
            await asyncio.wait((ended := loop.create_task(tracked.ended.wait()),), timeout=seconds)
            ended.cancel()
        while await self.in_thread(tree.members):
            if loop.time() >= deadline:
                return False
            await asyncio.sleep(min(pause, max(0.0, deadline - loop.time())))
            pause = min(pause * 2, 0.05)
        return True

    async def kill(self, tracked: Tracked) -> None:
        """End what is left of the current run, at once; raises Transient where it does not die."""
        tree = self.tree(tracked)
        loop = asyncio.get_running_loop()
        deadline, pause = loop.time() + KILL_SECONDS, 0.001
        while tree and (left := await self.in_thread(tree.members)):
            if loop.time() >= deadline:
                pids = ", ".join(f"{process.pid} (state {process.state})" for process in left)
                raise Transient(f"cannot stop {tracked.carried.name}: these processes do not die: {pids}")
            await self.in_thread(tree.kill)
            await asyncio.sleep(pause)
            pause = min(pause * 2, 0.05)
        if tree:
            await self.in_thread(self.remove_groups, tracked)

    async def remove(self, seen: Observed) -> None:
        """All of an instance that does not run; raises Transient where it does, or where its folder cannot be deleted."""
        tracked = self.watch.get(seen.name)
        if tracked is None:
            return
        await self.watch.catch_up(tracked)  # a start that was answered too late may have become a run since
        await self.watch.check((tracked,))
        if tracked.running and tracked.newest and tracked.newest.claim:
            raise Transient(f"cannot remove {seen.name}: it still runs (pid {tracked.newest.claim.pid})")
        await self.kill(tracked)
        try:
            await self.in_thread(self._delete, tracked)
        except OSError as error:
            raise Transient(f"cannot remove {seen.name}: {error.filename}: {error.strerror}") from error
        self.watch.forget(seen.name)

    def _delete(self, tracked: Tracked) -> None:
        folders.delete(self.layout, tracked.carried.name, self.clock.boot_id)
        self.remove_groups(tracked)
