"""Knows every process instance of the node and how its runs end, without looking while nothing happens.

Read from the folders once; afterwards keepers tell of exits, and a pidfd on every process tells of them too where
no keeper is left to do so. Work on files happens in a thread.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from boreas_agent.clock import Clock
from boreas_agent.drivers import folders, procfs, script
from boreas_agent.drivers.runs import Carried, Claim, Layout, Run, read_exit, read_runs, scan, write_exit
from boreas_agent.drivers.tracked import Tracked
from boreas_agent.errors import Unavailable
from boreas_agent.model import InstanceName

KEEPER_SECONDS = 2.0
"""How long a living keeper may take to say how a process ended: it may be stopped, or wait for a disk."""
KEEPER_HEAD_START = 0.05
"""How long it is waited for before anything is done about the end at all."""
RESCAN_EVERY = 10
LOGS_KEPT_SECONDS = 30 * 86400.0
"""How long the logs of an app that runs no more are kept."""
UNKNOWN = "exit status unknown"
REBOOTED = "outcome unknown: the machine restarted"
_log = logging.getLogger(__name__)


class Watch:
    """All instances of one node identity under one work dir; ``changed`` is told the app of every run that ends.

    ``linked`` says whether a keeper would tell us of an exit by itself.
    """

    def __init__(  # noqa: PLR0913  # whose instances, and three ways to ask and tell the driver
        self,
        layout: Layout,
        identity: str,
        clock: Clock,
        *,
        in_thread: Callable[..., Awaitable[Any]],
        changed: Callable[[str], None],
        linked: Callable[[tuple[int, int]], bool],
    ) -> None:
        self._layout = layout
        self._identity = identity
        self._clock = clock
        self._in_thread = in_thread
        self._changed = changed
        self._linked = linked
        self._tracked: dict[InstanceName, Tracked] = {}
        self._apps: dict[str, dict[InstanceName, Tracked]] = {}  # the same, by app
        self._folders: dict[str, Tracked] = {}  # the same, as keepers name them
        self._looks = itertools.count(1)
        self._scanned = False

    async def close(self) -> None:
        """Stop watching."""
        settling = [tracked.settling for tracked in self._tracked.values() if tracked.settling]
        for task in settling:
            task.cancel()
        await asyncio.gather(*settling, return_exceptions=True)
        for tracked in self._tracked.values():
            self._unwatch(tracked)
        self._tracked.clear()
        self._apps.clear()
        self._folders.clear()

    # --- the instances

    def get(self, name: InstanceName) -> Tracked | None:
        """The instance, if there is one."""
        return self._tracked.get(name)

    def knows(self, app: str) -> bool:
        """Whether there is any instance of ``app``."""
        return app in self._apps

    async def add(self, carried: Carried, runs: tuple[Run, ...] = ()) -> Tracked:
        """Know an instance and watch its current run."""
        tracked = self._tracked[carried.name] = Tracked(carried, self._layout.places(carried.name).folder, runs)
        self._apps.setdefault(carried.name.app, {})[carried.name] = tracked
        self._folders[tracked.where] = tracked
        for run, after in itertools.zip_longest(runs, runs[1:]):
            if run.ended is not None:
                tracked.tails[run.number] = await self._tail(tracked, run.claim, run.ended, after.claim if after else None)
        await self.follow(tracked)
        return tracked

    def forget(self, name: InstanceName) -> None:
        """The instance is gone."""
        tracked = self._tracked.pop(name, None)
        if tracked:
            del self._folders[tracked.where]
            of_app = self._apps[name.app]
            del of_app[name]
            if not of_app:
                del self._apps[name.app]
            self._unwatch(tracked)

    async def look(self, app: str | None = None) -> Sequence[Tracked]:
        """The instances of ``app``, or all: each checked against its process, ends found out. Raises Unavailable."""
        await self._first_scan()
        if app is None and next(self._looks) % RESCAN_EVERY == 0:
            await self._rescan()
        some = tuple((self._tracked if app is None else self._apps.get(app, {})).values())
        await self.check(some)
        return some

    def pids(self) -> dict[str, list[int]]:
        """The main processes of what is thought to run, by app."""
        found: dict[str, list[int]] = {}
        for tracked in self._tracked.values():
            if tracked.running and (claim := self._current_claim(tracked.newest)):
                found.setdefault(tracked.carried.name.app, []).append(claim.pid)
        return found

    async def check(self, some: Iterable[Tracked]) -> None:
        """Make sure that what is thought to run does, and wait for what is just being found out."""
        running = [tracked for tracked in some if tracked.running and tracked.settling is None]
        if running:
            states = await self._in_thread(lambda: [self._living(tracked) for tracked in running])
            for tracked, state in zip(running, states, strict=True):
                tracked.paused = state is not None and state.paused
                if state is None:
                    self._died(tracked)
        if settling := [tracked.settling for tracked in some if tracked.settling]:
            await asyncio.wait(settling)

    def _living(self, tracked: Tracked) -> procfs.Stat | None:
        claim = self._current_claim(tracked.newest)
        return procfs.living(claim.pid, claim.start) if claim else None

    def _current_claim(self, run: Run | None) -> Claim | None:
        """None where the claim cannot be read or is of another boot: no process is meant by it."""
        return run.claim if run and run.claim and run.claim.boot == self._clock.boot_id else None

    # --- the folders

    async def scan(self) -> None:
        """Read what is there; raises OSError."""
        for carried, runs in await self._in_thread(self._read_all):
            if carried.name not in self._tracked:
                await self.add(carried, runs)
        self._scanned = True

    async def _first_scan(self) -> None:
        if not self._scanned:
            try:
                await self.scan()
            except OSError as error:
                raise Unavailable(f"cannot read {self._layout.apps}: {error.strerror}") from error

    def _read_all(self) -> list[tuple[Carried, tuple[Run, ...]]]:
        return [(carried, read_runs(self._layout.folder(carried.name))) for carried in scan(self._layout, self._identity)]

    async def _rescan(self) -> None:
        """Somebody may have put folders there, or deleted some: a running instance gets its folder back."""
        with suppress(OSError):
            found = {carried.name: runs for carried, runs in await self._in_thread(self._read_all)}
            for name in self._tracked.keys() - found.keys():
                tracked = self._tracked[name]
                claim = self._current_claim(tracked.newest)
                if tracked.busy or await self._in_thread((tracked.folder / "instance.json").exists):
                    continue
                if tracked.running and claim:
                    _log.warning("restored the folder of a running instance", extra={"instance": str(name)})
                    await self._in_thread(folders.restore, tracked.folder, tracked.carried, claim)
                else:
                    self.forget(name)
            await self.scan()
            await self._in_thread(folders.sweep, self._layout, self._clock.now().timestamp() - LOGS_KEPT_SECONDS)

    async def catch_up(self, tracked: Tracked) -> None:
        """Learn of runs that began without an answer to us. Raises Unavailable."""
        try:
            found = await self._in_thread(read_runs, tracked.folder)
        except OSError as error:
            raise Unavailable(f"cannot read {tracked.folder}: {error.strerror}") from error
        for run in found:
            if run.number > tracked.number or (run.number == tracked.number and not tracked.running):
                tracked.began(run)
                await self.follow(tracked)

    # --- the ends

    async def follow(self, tracked: Tracked) -> None:
        """Hear of the end of the current run."""
        run, claim = tracked.newest, self._current_claim(tracked.newest)
        if run is None or run.ended is not None:
            return
        if run.number in tracked.noted:
            self.noticed(tracked.where, run.number, tracked.noted[run.number], clean=False)
            return
        fd = await self._in_thread(procfs.open_process, claim.pid, claim.start) if claim else None
        current = tracked.newest is run and tracked.running and tracked.pidfd is None
        if fd is not None and not current:
            os.close(fd)  # it ended meanwhile
        elif fd is not None:
            tracked.pidfd = fd
            asyncio.get_running_loop().add_reader(fd, self._ended, tracked)
        elif current:
            self._died(tracked)

    def _unwatch(self, tracked: Tracked) -> None:
        if tracked.late is not None:
            tracked.late.cancel()
            tracked.late = None
        if tracked.pidfd is not None:
            asyncio.get_running_loop().remove_reader(tracked.pidfd)
            os.close(tracked.pidfd)
            tracked.pidfd = None

    def noticed(self, folder: str, number: int, data: Mapping[str, Any], clean: bool) -> None:
        """A keeper tells of an exit, perhaps before its answer to the start was heard."""
        tracked = self._folders.get(folder)
        if tracked:
            tracked.noted[number] = data
            tracked.hint.set()
            tracked.clean = clean and tracked.number == number
            if tracked.running and tracked.number == number:
                if tracked.carried.kind == "script":
                    self._died(tracked)
                else:
                    self._over(tracked, number, data)

    async def keeper_gone(self, keeper: tuple[int, int]) -> None:
        """What it has told and perhaps not written down is for us to write."""
        for tracked in tuple(self._tracked.values()):
            for run in tracked.runs:
                if run.ended is not None and run.claim is not None and run.claim.keeper == keeper:
                    with suppress(OSError):
                        await self._in_thread(write_exit, tracked.folder, run.number, run.ended)

    def _ended(self, tracked: Tracked) -> None:
        """The process of the current run has ended. A keeper that will say how is woken by the same end, and is let go first."""
        claim = self._current_claim(tracked.newest)
        if tracked.pidfd is None or claim is None or not self._linked(claim.keeper):
            self._died(tracked)
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(tracked.pidfd)
        tracked.late = loop.call_later(KEEPER_HEAD_START, self._died, tracked)

    def _died(self, tracked: Tracked) -> None:
        """The process of the current run has ended, and it is to be found out how."""
        self._unwatch(tracked)
        if tracked.running and tracked.settling is None:
            if tracked.number not in tracked.noted:
                tracked.hint.clear()
            tracked.settling = asyncio.get_running_loop().create_task(self._settle(tracked))

    async def _settle(self, tracked: Tracked) -> None:
        """Find out how the current run ended."""
        run = tracked.newest
        assert run
        try:
            data = await self._find_exit(tracked, run)
            if tracked.running and tracked.newest is run:
                self._over(tracked, run.number, data, await self._tail(tracked, run.claim, data, None))
        finally:
            tracked.settling = None

    async def _find_exit(self, tracked: Tracked, run: Run) -> Mapping[str, Any]:
        """From the keeper's notice, or its file; without either, once the keeper is gone or late, nobody knows."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + KEEPER_SECONDS
        claim = self._current_claim(run)
        if claim and self._linked(claim.keeper):
            await _hinted(tracked)
        while True:
            tracked.hint.clear()
            told: Mapping[str, Any] | None = run.ended or tracked.noted.get(run.number)
            if told is None:
                witness = claim is not None and await self._in_thread(procfs.living, *claim.keeper) is not None
                told = await self._in_thread(read_exit, tracked.folder, run.number)
                if told is None and not (witness and loop.time() < deadline):
                    told = await self._in_thread(self._write_unknown, tracked.folder, run.number, UNKNOWN if claim else REBOOTED)
            if told is not None:
                return told
            await _hinted(tracked)

    def _write_unknown(self, folder: Path, number: int, reason: str) -> Mapping[str, Any]:
        seen = self._clock.boottime() if reason == UNKNOWN else None
        data = {"status": None, "error": reason, "wall": self._clock.now().timestamp(), "boottime": seen}
        with suppress(OSError):
            write_exit(folder, number, data)
        return read_exit(folder, number) or data

    def _over(self, tracked: Tracked, number: int, data: Mapping[str, Any], tail: str = "") -> None:
        tracked.over(number, data, tail)
        self._unwatch(tracked)
        self._changed(tracked.carried.name.app)

    async def _tail(self, tracked: Tracked, claim: Claim | None, ended: Mapping[str, Any], after: Claim | None) -> str:
        """What a script wrote last, from its log between the offsets that were noted."""
        if tracked.carried.kind != "script" or claim is None:
            return ""
        name = tracked.carried.name
        out = (self._layout.log(name, "stdout"), claim.stdout, ended.get("stdout", after.stdout if after else None))
        err = (self._layout.log(name, "stderr"), claim.stderr, ended.get("stderr", after.stderr if after else None))
        text: str = await self._in_thread(script.tail, (out, err))
        return text


async def _hinted(tracked: Tracked) -> None:
    """There is news of an end, or it is time to look for some."""
    with suppress(TimeoutError):
        await asyncio.wait_for(tracked.hint.wait(), timeout=KEEPER_HEAD_START)
