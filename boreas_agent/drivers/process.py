"""Binaries and scripts as processes. The keeper is their parent; this driver asks for runs, watches, and ends them.

A run belongs to exactly one decision: run N+1 is asked for only after run N was seen to end, and claimed by whoever
becomes it (see ``boreas_agent.keeper``). So every step may be repeated, by this driver or another one.
"""

from __future__ import annotations

import asyncio
import logging
import signal as signals
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from boreas_agent.clock import Clock
from boreas_agent.drivers import cgroup, folders, launch
from boreas_agent.drivers.blanks import Blanks
from boreas_agent.drivers.commands import Commands
from boreas_agent.drivers.keeper_client import Keepers
from boreas_agent.drivers.mailbox import Mailbox
from boreas_agent.drivers.runs import Layout, Run, forget_old, parse_claim
from boreas_agent.drivers.tracked import Tracked
from boreas_agent.drivers.tree import MARK, Tree
from boreas_agent.drivers.watch import Watch
from boreas_agent.errors import Invalid, Transient, Unavailable
from boreas_agent.model import Executed, Exit, Instance, InstanceName, Observed
from boreas_agent.records import decode, instances

KILL_SECONDS = 10.0
"""How long a killed process may take to disappear; one that waits for a dead disk takes for ever."""
THREADS = 16
"""Started as they are needed; more than two, so that one app's dead disk or directory service does not hold up the others."""
_log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Ready:
    """What a start needs, made ready in the thread."""

    request: Mapping[str, Any]
    leftovers: bool


class ProcessDriver:
    """The driver of binary and script apps (see ``drivers.base.Driver``)."""

    kinds = frozenset({"binary", "script"})
    keeps_exits = True

    def __init__(self, work_dir: Path, identity: str, clock: Clock, *, find_cgroups: Callable[[], Path | None] = cgroup.find_root) -> None:
        self._layout = Layout(work_dir.absolute())
        self._identity = identity
        self._clock = clock
        self._find_cgroups = find_cgroups
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="process-driver")
        self._watch = Watch(self._layout, identity, clock, in_thread=self._in_thread, changed=self._changed, linked=self._linked)
        self._keepers = Keepers(self._layout.keeper, self._in_thread, self._watch.noticed)
        self._commands = Commands(self._in_thread)
        self._blanks = Blanks(self._layout, self._in_thread)
        self._own = launch.own_account()
        self._locks: dict[InstanceName, asyncio.Lock] = {}
        self._starts: set[asyncio.Task[None]] = set()
        self._listeners: set[Mailbox] = set()

    async def open(self) -> None:
        try:
            await self._keepers.open(await self._in_thread(self._keeper_group))
            await self._watch.scan()
            await self._blanks.open()
        except OSError as error:
            _log.warning("cannot read the process instances yet", extra={"error": str(error)})

    def _keeper_group(self) -> Path | None:
        """Its own, so that ending all of the agent's group does not end the keeper; the runs get theirs beside it."""
        root = self._find_cgroups()
        path = cgroup.path_of(root, self._identity, "keeper") if root else None
        if path:
            cgroup.sweep(path.parent)
        return cgroup.create(path) if path else None

    async def close(self) -> None:
        for task in self._starts:
            task.cancel()
        await asyncio.gather(*self._starts, return_exceptions=True)
        await self._watch.close()
        await self._commands.close()
        await self._keepers.close()
        await self._blanks.close()
        await asyncio.to_thread(self._threads.shutdown)

    async def _in_thread(self, work: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *args)

    # --- look

    async def observe(self, app: str) -> Sequence[Observed]:
        return [tracked.observed(self._clock.boot_id) for tracked in await self._watch.look(app)]

    async def observe_all(self) -> Mapping[str, Sequence[Observed] | None]:
        grouped: dict[str, list[Observed]] = {}
        for tracked in await self._watch.look():
            grouped.setdefault(tracked.carried.name.app, []).append(tracked.observed(self._clock.boot_id))
        return dict(grouped)

    async def events(self) -> AsyncIterator[str]:
        mailbox = Mailbox()
        self._listeners.add(mailbox)
        try:
            while True:
                yield await mailbox.take()
        finally:
            self._listeners.discard(mailbox)

    def _linked(self, keeper: tuple[int, int]) -> bool:
        return self._keepers.linked(keeper)

    def _changed(self, app: str) -> None:
        for listener in self._listeners:
            listener.put(app)

    # --- start

    async def prepare(self, want: Instance) -> None:
        """Nothing to fetch."""

    async def prepared(self, want: Instance) -> bool:
        return True

    async def start(self, want: Instance, after: int) -> None:
        """Goes on in the background where the caller gives up: a run that was asked for must not go unseen."""
        work = asyncio.get_running_loop().create_task(self._start(want, after))
        self._starts.add(work)
        work.add_done_callback(self._starts.discard)
        await asyncio.shield(work)

    async def _start(self, want: Instance, after: int) -> None:
        async with self._lock(want.name):
            tracked = self._watch.get(want.name)
            if tracked and tracked.carried.hash != want.hash:
                await self._replace(tracked, want)
                tracked = None
            if tracked and (tracked.running or tracked.number > after):
                return
            if await (self._run_again(tracked, after + 1) if tracked else self._run_on_blank(want, after + 1)):
                return
            try:
                ready = await self._in_thread(self._make_ready, want, after + 1, tracked)
            except OSError as error:
                raise Transient(f"cannot start {want.name}: {error.filename or 'the system'}: {error.strerror}") from error
            if tracked is None:
                tracked = await self._watch.add(folders.carried_by(want, self._identity))
            elif ready.leftovers:
                await self._kill(tracked)
            await self._run(tracked, ready.request)

    async def _run_on_blank(self, want: Instance, run: int) -> bool:
        """The first start of an app, without having anything made or looked up for it; whether that could be done."""
        if not launch.is_plain(want) or self._watch.knows(want.name.app):
            return False
        laid_out = self._blanks.take(want.name)
        if laid_out is None:
            self._blanks.refill()
            return False
        request = {**launch.request(want, run, self._layout, self._identity, self._own), **laid_out}
        request["writes"] = [(str(self._layout.folder(want.name) / "instance.json"), folders.carried_text(want, self._identity))]
        tracked = await self._watch.add(folders.carried_by(want, self._identity))
        try:
            await self._run(tracked, request)
        except Transient as error:
            self._watch.forget(want.name)
            _log.debug("making folders anew", extra={"instance": str(want.name), "error": str(error)})
            return False
        finally:
            self._blanks.refill()
        return True

    async def _run_again(self, tracked: Tracked, run: int) -> bool:
        """Ask for what was asked for the last time, with nothing looked up anew; whether that could be done."""
        if tracked.request is None or not tracked.clean:
            return False
        try:
            await self._run(tracked, {**tracked.request, "run": run, "moves": [], "writes": [], "sync": []})
        except Transient as error:
            tracked.request = None  # perhaps a folder is gone: it is made again
            _log.info("looking at everything anew", extra={"instance": str(tracked.carried.name), "error": str(error)})
            return False
        return True

    def _make_ready(self, want: Instance, run: int, tracked: Tracked | None) -> _Ready:
        request = launch.request(want, run, self._layout, self._identity, self._own)
        request["sync"] = folders.ensure(self._layout, self._identity, want, known=tracked is not None)
        tree = self._tree(tracked)
        return _Ready(request, leftovers=tree is not None and bool(tree.members()))

    async def _run(self, tracked: Tracked, request: Mapping[str, Any]) -> None:
        tracked.busy = True
        try:
            answer = await self._keepers.spawn(request)
            if "claim" in answer:
                tracked.began(Run(request["run"], parse_claim(request["run"], answer["claim"])))
                tracked.request = request
            else:
                await self._watch.catch_up(tracked)
            await self._watch.follow(tracked)
            await self._in_thread(forget_old, tracked.folder, tracked.number)
        finally:
            tracked.busy = False

    async def _replace(self, tracked: Tracked, want: Instance) -> None:
        """The name is taken by an instance of ours that was made from something else."""
        seen = tracked.observed(self._clock.boot_id)
        await self._stop(seen, want.pkg.stop.signal, want.pkg.stop.grace_seconds)
        await self._remove(seen)

    def _lock(self, name: InstanceName) -> asyncio.Lock:
        return self._locks.setdefault(name, asyncio.Lock())

    # --- run something beside it

    async def execute(self, seen: Observed, command: Sequence[str], seconds: float) -> Executed:
        """Looks up anew what the environment is, as a start would: the command is to see what the instance saw."""
        tracked = self._watch.get(seen.name)
        if tracked is None or not tracked.running:
            raise Unavailable(f"cannot run a command beside {seen.name}: it does not run")
        try:
            request = await self._in_thread(self._beside, tracked, tuple(command))
        except (OSError, Invalid) as error:
            raise Unavailable(f"cannot run a command beside {seen.name}: {error}") from error
        return await self._commands.run(request, seconds)

    def _beside(self, tracked: Tracked, command: tuple[str, ...]) -> dict[str, Any]:
        if tracked.instance is None:
            carried = tracked.carried
            tracked.instance = instances(decode(carried.record), (carried.name.replica,))[carried.name.replica]
        return launch.beside(tracked.instance, command, self._layout, self._identity, self._own)

    # --- stop and remove

    async def stop(self, seen: Observed, signal: str, grace_seconds: float) -> Exit | None:
        async with self._lock(seen.name):
            return await self._stop(seen, signal, grace_seconds)

    async def _stop(self, seen: Observed, signal: str, grace_seconds: float) -> Exit | None:
        tracked = self._watch.get(seen.name)
        tree = self._tree(tracked)
        if tracked is None or tree is None:
            return None
        await self._watch.check((tracked,))
        if not tracked.running:
            await self._kill(tracked)
            return None
        await self._in_thread(tree.signal, signals.Signals[signal])
        await self._in_thread(tree.signal, signals.SIGCONT)
        if not await self._gone(tree, tracked, grace_seconds):
            await self._kill(tracked)
        await self._watch.check((tracked,))
        return tracked.exits()[-1] if not tracked.running else None

    async def _gone(self, tree: Tree, tracked: Tracked, seconds: float) -> bool:
        """Whether the whole tree ends in time."""
        loop = asyncio.get_running_loop()
        deadline, pause = loop.time() + seconds, 0.002
        if tracked.running:
            await asyncio.wait((ended := loop.create_task(tracked.ended.wait()),), timeout=seconds)
            ended.cancel()
        while await self._in_thread(tree.members):
            if loop.time() >= deadline:
                return False
            await asyncio.sleep(min(pause, max(0.0, deadline - loop.time())))
            pause = min(pause * 2, 0.05)
        return True

    async def _kill(self, tracked: Tracked) -> None:
        """End what is left of the current run, at once; raises Transient where it does not die."""
        tree = self._tree(tracked)
        loop = asyncio.get_running_loop()
        deadline, pause = loop.time() + KILL_SECONDS, 0.001
        while tree and (left := await self._in_thread(tree.members)):
            if loop.time() >= deadline:
                pids = ", ".join(f"{process.pid} (state {process.state})" for process in left)
                raise Transient(f"cannot stop {tracked.carried.name}: these processes do not die: {pids}")
            await self._in_thread(tree.kill)
            await asyncio.sleep(pause)
            pause = min(pause * 2, 0.05)
        if tree and tree.claim.cgroup:
            await self._in_thread(cgroup.remove, Path(tree.claim.cgroup))

    def _tree(self, tracked: Tracked | None) -> Tree | None:
        """The processes of the current run; None where none was ever started."""
        claim = tracked.newest.claim if tracked and tracked.newest else None
        if tracked is None or claim is None:
            return None
        return Tree(claim, self._clock.boot_id, f"{MARK}={launch.mark_of(self._identity, tracked.carried.name)}")

    async def remove(self, seen: Observed) -> None:
        async with self._lock(seen.name):
            await self._remove(seen)
        self._locks.pop(seen.name, None)

    async def _remove(self, seen: Observed) -> None:
        tracked = self._watch.get(seen.name)
        if tracked is None:
            return
        await self._watch.catch_up(tracked)  # a start that was answered too late may have become a run since
        await self._watch.check((tracked,))
        if tracked.running and tracked.newest and tracked.newest.claim:
            raise Transient(f"cannot remove {seen.name}: it still runs (pid {tracked.newest.claim.pid})")
        await self._kill(tracked)
        try:
            await self._in_thread(self._delete, tracked)
        except OSError as error:
            raise Transient(f"cannot remove {seen.name}: {error.filename}: {error.strerror}") from error
        self._watch.forget(seen.name)

    def _delete(self, tracked: Tracked) -> None:
        folders.delete(self._layout, tracked.carried.name, self._clock.boot_id)
        for run in tracked.runs:
            if run.claim and run.claim.cgroup:
                cgroup.remove(Path(run.claim.cgroup))

    async def resume(self, seen: Observed) -> None:
        tree = self._tree(self._watch.get(seen.name))
        if tree:
            await self._in_thread(tree.signal, signals.SIGCONT)

    async def rename(self, seen: Observed) -> None:
        """Processes have no names that anybody could change."""
