"""Binaries and scripts as processes. The keeper is their parent; this driver asks for runs, watches, and ends them.

A run belongs to exactly one decision: run N+1 is asked for only after run N was seen to end, and claimed by whoever
becomes it (see ``boreas_agent.keeper``). So every step may be repeated, by this driver or another one.
"""

from __future__ import annotations

import asyncio
import logging
import signal as signal_numbers
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from boreas_agent.artifacts.limits import Limits as ArtifactLimits
from boreas_agent.artifacts.releases import Contents, Releases
from boreas_agent.clock import Clock
from boreas_agent.drivers import cgroup, folders, launch
from boreas_agent.drivers.blanks import FIRST_RUN, Blanks
from boreas_agent.drivers.commands import Commands
from boreas_agent.drivers.ending import Ending
from boreas_agent.drivers.keeper_client import Keepers
from boreas_agent.drivers.limits import Limits, Place
from boreas_agent.drivers.limits import find as find_controllers
from boreas_agent.drivers.mailbox import Mailbox
from boreas_agent.drivers.output import Output
from boreas_agent.drivers.runs import Carried, Layout, Reloaded, Run, forget_old, parse_claim
from boreas_agent.drivers.tracked import Tracked
from boreas_agent.drivers.watch import Watch
from boreas_agent.errors import Invalid, Transient, Unavailable
from boreas_agent.keeper.kernel import sync
from boreas_agent.model import Executed, Exit, Instance, InstanceName, Observed, OutputLine, OutputQuery
from boreas_agent.records import carried
from boreas_agent.spec import BinaryPkg, ScriptPkg, contents_hash, release_hash

REMAKE_SECONDS = 60.0
"""How long a start waits for a release that somebody has deleted; what was fetched until then helps the next one."""
THREADS = 16
"""Started as they are needed; more than two, so that one app's dead disk or directory service does not hold up the others."""
OUTPUT_LINES = 1000
FOLLOW_SECONDS = 0.2
_log = logging.getLogger(__name__)
T = TypeVar("T")


class _Ready(Struct, frozen=True):
    """What a start needs, made ready in the thread."""

    request: Mapping[str, Any]
    leftovers: bool


class ProcessDriver:
    """The driver of binary and script apps (see ``drivers.base.Driver``)."""

    kinds = frozenset({"binary", "script"})
    keeps_exits = True
    epoch = 0
    """Processes end one by one, or with the machine, which ends the agent too."""

    def __init__(  # noqa: PLR0913  # and two ways in which the tests' machines differ
        self,
        work_dir: Path,
        identity: str,
        clock: Clock,
        *,
        limits: ArtifactLimits = ArtifactLimits(),  # noqa: B008  # frozen
        require_cgroups: bool = True,
        find_cgroups: Callable[[], Path | None] = cgroup.find_root,
        find_controllers: Callable[[], Mapping[str, Place]] = find_controllers,
    ) -> None:
        """``limits``: of what is fetched; ``require_cgroups``: what has limits that this machine cannot set is not started."""
        self._layout = Layout(work_dir.absolute())
        self._identity = identity
        self._clock = clock
        self._find_cgroups = find_cgroups
        self._find_controllers = find_controllers
        self._require_cgroups = require_cgroups
        self._limits = Limits({}, None, identity, required=require_cgroups)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="process-driver")
        self._watch = Watch(self._layout, identity, clock, in_thread=self._in_thread, changed=self._changed, linked=self._linked)
        self._ending = Ending(self._layout, identity, clock, self._watch, self._in_thread, self._remove_groups)
        self._keepers = Keepers(self._layout.keeper, self._in_thread, self._watch.noticed, self._watch.keeper_gone)
        self._commands = Commands(self._in_thread)
        self._blanks = Blanks(self._layout, self._in_thread)
        self._releases = Releases(self._layout.apps, self._layout.work_dir / "cache", limits)
        self._own = launch.own_account()
        self._locks: dict[InstanceName, asyncio.Lock] = {}
        self._starts: set[asyncio.Task[None]] = set()
        self._remaking: set[asyncio.Task[None]] = set()
        self._listeners: set[Mailbox] = set()

    async def open(self) -> None:
        try:
            await self._keepers.open(await self._in_thread(self._keeper_group))
            await self._watch.scan()
            await self._blanks.open()
            await self._releases.open()
        except OSError as error:
            _log.warning("cannot read the process instances yet", extra={"error": str(error)})

    def _keeper_group(self) -> Path | None:
        """Its own, so that ending all of the agent's group does not end the keeper; the runs get theirs beside it."""
        root = self._find_cgroups()
        self._limits = Limits(self._find_controllers(), root, self._identity, required=self._require_cgroups)
        self._limits.open()
        path = cgroup.path_of(root, self._identity, "keeper") if root else None
        if path:
            cgroup.sweep(path.parent)
        return cgroup.create(path) if path else None

    def leave(self) -> None:
        """The agent is about to stop: what is given up from now on is for the next one to go on with."""
        self._releases.leave()

    async def close(self) -> None:
        for task in self._remaking:
            task.cancel()
        await asyncio.gather(*self._remaking, return_exceptions=True)
        await self._releases.close()
        for task in self._starts:
            task.cancel()
        await asyncio.gather(*self._starts, return_exceptions=True)
        await self._watch.close()
        await self._commands.close()
        await self._keepers.close()
        await self._blanks.close()
        await asyncio.to_thread(self._threads.shutdown)

    @property
    def keeper_up(self) -> bool:
        """The parent of processes to come is there; where it is not, the next start starts one."""
        return self._keepers.up

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

    async def output(self, app: str, query: OutputQuery) -> AsyncGenerator[Sequence[OutputLine], None]:
        """From the logs of all its replicas, those of instances that are gone included."""
        output = Output(self._layout, app, query)
        past = await self._in_thread(output.past)
        more = True
        while more:
            lines = await self._in_thread(lambda: list(islice(past, OUTPUT_LINES)))
            yield lines
            more = bool(lines)
        while query.follow:
            news = await self._in_thread(output.news, OUTPUT_LINES)
            if news:
                yield news
            else:
                await asyncio.sleep(FOLLOW_SECONDS)

    def pids(self) -> Mapping[str, Sequence[int]]:
        """The main processes of what runs."""
        return self._watch.pids()

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
        """Have its release, with all that its artifacts and files bring."""
        if _process(want).brings:
            await self._releases.make(want.name.app, self._layout.release(want.name), await self._contents(want))

    async def _contents(self, want: Instance) -> Contents:
        pkg = _process(want)
        owner = await self._in_thread(launch.owner, want) if pkg.files else None
        return Contents(pkg.artifacts, pkg.files, release_hash(pkg), contents_hash(pkg), owner)

    async def prepared(self, want: Instance) -> bool:
        pkg = _process(want)
        return not pkg.brings or await self._releases.made(self._layout.release(want.name), release_hash(pkg), contents_hash(pkg))

    def progress(self, app: str) -> str:
        return self._releases.progress(app)

    async def start(self, want: Instance, after: int) -> None:
        """Goes on in the background where the caller gives up: a run that was asked for must not go unseen."""
        if not await self.prepared(want):
            await self._remake(want)
        work = asyncio.get_running_loop().create_task(self._start(want, after))
        self._starts.add(work)
        work.add_done_callback(self._starts.discard)
        await asyncio.shield(work)

    async def _remake(self, want: Instance) -> None:
        """What is started again is not prepared again, so its release is looked for here."""
        await self._in_time(self.prepare(want), f"cannot start {want.name}: its release is gone, and is not here again yet")

    async def _in_time(self, work: Coroutine[Any, Any, None], words: str) -> None:
        """Raises Transient where it takes too long, and lets it go on: the next attempt finds it done, or waits for it."""
        task = asyncio.get_running_loop().create_task(work)
        self._remaking.add(task)
        task.add_done_callback(self._remade)
        try:
            await asyncio.wait({task}, timeout=REMAKE_SECONDS)
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait({task})
            raise
        if not task.done():
            raise Transient(words)
        task.result()

    def _remade(self, task: asyncio.Task[None]) -> None:
        self._remaking.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waited has it, and nobody else needs it

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
                await self._ending.kill(tracked)
            await self._run(tracked, ready.request, again=not want.pkg.environment_from)

    async def _run_on_blank(self, want: Instance, run: int) -> bool:
        """The first start of an app, without having anything made or looked up for it; whether that could be done.

        Of one that has a single replica: another, which starts beside it, would make folders where the blank is being moved to.
        """
        if run != FIRST_RUN or not launch.is_plain(want) or want.pkg.replicas > 1 or self._watch.knows(want.name.app):
            return False
        laid_out = self._blanks.take(want.name)
        if laid_out is None:
            self._blanks.refill()
            return False
        request = {**launch.request(want, run, self._layout, self._identity, self._own), **laid_out}
        carried = folders.carried_by(want, self._identity)
        request["writes"] = [(f"{request['folder']}/instance.json", folders.carried_text(carried))]
        tracked = await self._watch.add(carried)
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
            await self._run(tracked, {**tracked.request, "run": run, "blank": None, "moves": [], "writes": [], "sync": []})
        except Transient as error:
            tracked.request = None  # perhaps a folder is gone: it is made again
            _log.info("looking at everything anew", extra={"instance": str(tracked.carried.name), "error": str(error)})
            return False
        return True

    def _make_ready(self, want: Instance, run: int, tracked: Tracked | None) -> _Ready:
        request = launch.request(want, run, self._layout, self._identity, self._own)
        request["groups"] = self._limits.groups(want.name, want.pkg.resources)
        request["sync"] = folders.ensure(self._layout, self._identity, want, known=tracked is not None)
        tree = self._ending.tree(tracked)
        return _Ready(request, leftovers=tree is not None and bool(tree.members()))

    async def _run(self, tracked: Tracked, request: Mapping[str, Any], *, again: bool = True) -> None:
        """Ask for the run that ``request`` describes; ``again``: it may be asked for the next time as it is."""
        tracked.busy = True
        try:
            answer = await self._keepers.spawn(request)
            if "claim" in answer:
                tracked.began(Run(request["run"], parse_claim(request["run"], answer["claim"])))
                tracked.request = request if again else None
            else:
                await self._watch.catch_up(tracked)
            await self._watch.follow(tracked)
            await self._in_thread(forget_old, tracked.folder, tracked.number)
        finally:
            tracked.busy = False

    async def _replace(self, tracked: Tracked, want: Instance) -> None:
        """The name is taken by an instance of ours that was made from something else."""
        seen = tracked.observed(self._clock.boot_id)
        await self._ending.stop(seen, want.pkg.stop.signal, want.pkg.stop.grace_seconds)
        await self._ending.remove(seen)

    def _lock(self, name: InstanceName) -> asyncio.Lock:
        return self._locks.setdefault(name, asyncio.Lock())

    # --- run something beside it

    async def check(self, want: Instance, seconds: float) -> Executed:
        async with self._lock(want.name):
            tracked = self._watch.get(want.name)
            if tracked and tracked.carried.hash != want.hash:
                await self._replace(tracked, want)
                tracked = None
            try:
                request = await self._in_thread(self._make_check, want, tracked)
            except OSError as error:
                raise Transient(f"cannot ask the check of {want.name}: {error.filename or 'the system'}: {error.strerror}") from error
            if tracked is None:
                await self._watch.add(folders.carried_by(want, self._identity))
        return await self._commands.run(request, seconds)

    def _make_check(self, want: Instance, tracked: Tracked | None) -> dict[str, Any]:
        request = launch.check(want, self._layout, self._identity, self._own)
        for folder in folders.ensure(self._layout, self._identity, want, known=tracked is not None):
            sync(folder)  # the claim of the run that may follow is durable only with them
        return request

    async def execute(self, seen: Observed, command: Sequence[str], seconds: float) -> Executed:
        """Looks up anew what the environment is, as a start would: the command is to see what the instance saw."""
        tracked = self._watch.get(seen.name)
        if tracked is None or not tracked.running:
            raise Unavailable(f"cannot run a command beside {seen.name}: it does not run")
        try:
            request = await self._in_thread(self._beside, tracked, tuple(command))
        except (OSError, Invalid) as error:
            raise Unavailable(f"cannot run a command beside {seen.name}: {error}") from error
        running = asyncio.ensure_future(self._commands.run(request, seconds))
        ended = asyncio.ensure_future(tracked.ended.wait())
        try:
            await asyncio.wait({running, ended}, return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                raise Unavailable(f"cannot run a command beside {seen.name}: it has ended meanwhile")
            return running.result()
        finally:
            for task in (running, ended):
                task.cancel()
            await asyncio.wait({running, ended})

    def _beside(self, tracked: Tracked, command: tuple[str, ...]) -> dict[str, Any]:
        if tracked.instance is None:
            tracked.instance = carried(tracked.carried.record, tracked.carried.name)
        return launch.beside(tracked.instance, command, self._layout, self._identity, self._own)

    async def run_once(self, want: Instance, command: Sequence[str], seconds: float) -> Executed:
        """The folder where it is to run is the instance's, made ahead."""
        try:
            request = await self._in_thread(self._apart, want, tuple(command))
        except OSError as error:
            raise Transient(f"cannot run a command for {want.name}: {error.filename or 'the system'}: {error.strerror}") from error
        try:
            return await self._commands.run(request, seconds)
        finally:
            await self._in_thread(folders.leave, self._layout, want.name)

    def _apart(self, want: Instance, command: tuple[str, ...]) -> dict[str, Any]:
        self._layout.release(want.name).mkdir(parents=True, exist_ok=True)
        return launch.beside(want, command, self._layout, self._identity, self._own)

    # --- stop and remove

    async def stop(self, seen: Observed, signal: str, grace_seconds: float) -> Exit | None:
        async with self._lock(seen.name):
            return await self._ending.stop(seen, signal, grace_seconds)

    async def reload(self, seen: Observed, want: Instance, signals: Sequence[str]) -> bool:
        """The release folder of the instance is written to; its own folder says before and after it what it is."""
        async with self._lock(seen.name):
            tracked = self._watch.get(seen.name)
            if tracked is None:
                return False
            reloaded = Reloaded(tracked.number, self._clock.boottime(), self._clock.boot_id, done=False)
            if tracked.carried.hash:
                await self._become(tracked, replace(tracked.carried, hash="", reloaded=reloaded))
            await self._in_time(self._refresh(want, seen.name), f"cannot reload {seen.name}: its files are not written yet")
            tree = self._ending.tree(tracked)
            for signal in signals:
                if tree and tracked.running:
                    await self._in_thread(tree.tell, signal_numbers.Signals[signal])
            reloaded = Reloaded(tracked.number, self._clock.boottime(), self._clock.boot_id)
            await self._become(tracked, replace(folders.carried_by(want, self._identity), name=seen.name, reloaded=reloaded))
            return True

    async def _refresh(self, want: Instance, name: InstanceName) -> None:
        """Bring the release of ``name`` the contents of ``want``'s."""
        if name.revision == want.name.revision or not await self.prepared(want):
            await self.prepare(want)
        if name.revision != want.name.revision:
            await self._releases.refresh(self._layout.release(name), await self._contents(want), self._layout.release(want.name))

    async def _become(self, tracked: Tracked, carried: Carried) -> None:
        try:
            await self._in_thread(folders.note, tracked.folder, carried)
        except OSError as error:
            raise Transient(f"cannot reload {carried.name}: {error.filename or 'the system'}: {error.strerror}") from error
        tracked.carried, tracked.instance = carried, None

    async def remove(self, seen: Observed) -> None:
        async with self._lock(seen.name):
            await self._ending.remove(seen)
        self._locks.pop(seen.name, None)

    def _remove_groups(self, tracked: Tracked) -> None:
        self._limits.remove(tracked.carried.name)
        for run in tracked.runs:
            if run.claim and run.claim.cgroup:
                cgroup.remove(Path(run.claim.cgroup))

    async def collect(self, keep: Mapping[str, Collection[int]]) -> None:
        try:
            await self._releases.collect([(self._layout.apps / app, revisions) for app, revisions in keep.items()])
        except OSError as error:
            raise Transient(f"cannot delete old releases: {error.filename}: {error.strerror}") from error

    async def resume(self, seen: Observed) -> None:
        tree = self._ending.tree(self._watch.get(seen.name))
        if tree:
            await self._in_thread(tree.signal, signal_numbers.SIGCONT)

    async def rename(self, seen: Observed) -> None:
        """Processes have no names that anybody could change."""


def _process(want: Instance) -> BinaryPkg | ScriptPkg:
    assert isinstance(want.pkg, BinaryPkg | ScriptPkg)
    return want.pkg
