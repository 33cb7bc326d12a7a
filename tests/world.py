"""A simulated machine: what survives the agent's death, and drivers that act on it.

The world counts the agent's steps (each effect, each commit, before and after), so that a test can cut the
agent's life at any of them by ``Crash``. It also checks, at every effect, what must never happen.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from msgspec.structs import replace

from boreas_agent import hooks
from boreas_agent.drivers.base import ALL_APPS
from boreas_agent.errors import Missing, Terminal, Transient, Unavailable
from boreas_agent.model import Executed, Exit, Head, Instance, InstanceName, Observed, OutputLine, OutputQuery, Phase, Probed
from boreas_agent.probing import Course, Defaults, Result, advance, begin, digest, targets, timing
from boreas_agent.records import decode
from boreas_agent.spec.probes import HealthSpec, ProbeKind


class Crash(BaseException):
    """The agent dies here, as by SIGKILL."""


class FakeClock:
    """Clocks that only tests move."""

    def __init__(self) -> None:
        self.boot = 1
        self.uptime = 1000.0
        self.wall = datetime(2026, 3, 1, tzinfo=UTC)

    @property
    def boot_id(self) -> str:
        return f"boot-{self.boot}"

    def boottime(self) -> float:
        return self.uptime

    def now(self) -> datetime:
        return self.wall

    def advance(self, seconds: float) -> None:
        """Time passes."""
        self.uptime += seconds
        self.wall += timedelta(seconds=seconds)

    def reboot(self) -> None:
        """Another boot: the boot clock starts near zero again."""
        self.boot += 1
        self.uptime = 5.0


@dataclass
class Thing:
    """A container or a process with its folder."""

    name: InstanceName
    kind: str
    version: str
    hash: str
    record: str
    identity: str
    phase: Phase = Phase.CREATED
    run: int = 0
    started: float | None = None
    exits: tuple[Exit, ...] = ()
    misnamed: bool = False
    container: int = 0  # another number for each that is created
    settled: bool = False  # of a script: since its last run its check has said that all is well
    reloaded: tuple[int, float] | None = None  # the run in which it went over to something else, and when
    read: tuple[str | None, ...] = ()  # the contents of its files, as its program has last read them

    @property
    def run_key(self) -> tuple[str, int, str]:
        """Tells this run of it from all others."""
        return self.name.app, self.name.replica, _observed(self).run_key

    @property
    def hook_key(self) -> str:
        """The same, as a head's ``hooked`` has it."""
        return hooks.key_of(_observed(self))

    @property
    def life(self) -> str:
        """Tells this run from all others of an instance of its name."""
        return f"{self.container}@{self.run}"

    @property
    def surges(self) -> bool:
        """It may run beside what it replaces."""
        return decode(self.record).pkg.rollout.surge > 0

    @property
    def once(self) -> bool:
        """It is a script that nothing but a failure has run again."""
        pkg = decode(self.record).pkg
        return pkg.type == "script" and pkg.check is None and pkg.schedule is None

    @property
    def ports(self) -> set[int]:
        """The host's ports that it takes."""
        return {port.host_port for port in getattr(decode(self.record).pkg, "ports", ())}


class World:
    """Everything outside the agent."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.things: dict[InstanceName, Thing] = {}
        self.away: set[str] = set()
        self.missing: set[tuple[str, str]] = set()  # (app, version) whose image cannot be fetched
        self.stuck: set[tuple[str, str]] = set()  # (app, version) that is paused whenever it is started
        self.programs: dict[tuple[str, str], int | None] = {}  # exit code at once, None = runs for ever
        self.runs: dict[tuple[str, int], list[int | None]] = {}  # of scripts: by revision, how each run ended
        self.again: set[tuple[str, int]] = set()  # scripts, by revision, that a check or a schedule may have run again
        self.ended: set[tuple[InstanceName, str]] = set()  # every run that ended while somebody could find out
        self.spared: set[str] = set()  # apps of which something must serve whatever the agent stops
        self.drained = False  # nothing needs to serve
        self.verdicts: dict[tuple[str, int, str], bool] = {}  # by run: whether its probes, when last asked, found it ready
        self.starts: Counter[tuple[str, str]] = Counter()  # by app and instance hash
        self.sick: set[tuple[str, str, ProbeKind]] = set()  # (app, version, kind of probe) that fails
        self.written: dict[str, list[OutputLine]] = {}
        self.writing: asyncio.Queue[OutputLine] = asyncio.Queue()
        self.allows: Callable[[Thing], None] = lambda _: None  # asserts that a thing may begin now
        self.familiar: set[tuple[str, str, int]] = set()  # (app, hash, replica) that has begun since nothing ran: again is healing
        self.refusing: set[tuple[str, str]] = set()  # (app, kind of hook) that fails
        self.pre_started: set[tuple[str, str]] = set()  # (app, hash) whose pre_start hook has succeeded
        self.hooks: list[str] = []  # every run of a hook, in order
        self.hooked: set[tuple[str, str]] = set()  # app and run whose post_start hook is on record as carried out
        self.states: dict[str, int] = {}  # what the check of an app's script says; 1 until the script has succeeded
        self.indigestible: set[str] = set()  # contents of files that kill whoever reads them
        self.full: set[str] = set()  # apps of which nothing can be noted any more
        self.useless: set[str] = set()  # apps whose script changes nothing
        self.mute: set[str] = set()  # apps whose check cannot be asked
        self.asked = 0  # checks
        self.begun = 0
        self.effects: list[str] = []
        self.steps = 0
        self.crash_at: int | None = None

    def step(self, what: str) -> None:
        """One more step of the agent; it may be its last."""
        self.steps += 1
        if self.crash_at is not None and self.steps >= self.crash_at:
            self.crash_at = None
            raise Crash(what)

    def running(self, app: str) -> list[Thing]:
        """The things of ``app`` that run."""
        return [thing for thing in self.things.values() if thing.name.app == app and thing.phase in (Phase.RUNNING, Phase.PAUSED)]

    def serving(self, app: str) -> list[Thing]:
        """Those of ``app`` that run and are ready as far as anybody has asked; what has no probe is as soon as it runs.

        What has a ``post_start`` hook is not before that is on record as carried out.
        """

        def ready(thing: Thing) -> bool:
            pkg = decode(thing.record).pkg
            complete = pkg.hooks.post_start is None or thing.reloaded is not None or (app, thing.hook_key) in self.hooked
            return complete and self.verdicts.get(thing.run_key, not pkg.health.probes)

        return [thing for thing in self.running(app) if thing.phase is Phase.RUNNING and ready(thing)]

    def begin(self, thing: Thing) -> None:
        """The program's first instruction."""
        others = [t for t in self.running(thing.name.app) if t is not thing]
        twins = [t for t in others if t.name.replica == thing.name.replica]
        assert not twins or thing.surges, f"{thing.name} started beside {twins[0].name}"
        shared = [t for t in others if t.ports & thing.ports]
        assert not shared, f"{thing.name} started on the port of {shared[0].name}"
        key = (thing.name.app, thing.hash, thing.name.replica)
        if key not in self.familiar:
            self.allows(thing)
        self.familiar = {one for one in self.familiar if one[0] != key[0] or one[1] == key[1]} | {key}
        self.starts[thing.name.app, thing.hash] += 1
        asked = thing.identity != "me" or thing.kind == "script" or decode(thing.record).pkg.hooks.pre_start is None
        assert asked or (thing.name.app, thing.hash) in self.pre_started, f"{thing.name} started without its pre_start hook"
        thing.run += 1
        thing.settled = False
        thing.phase = Phase.RUNNING
        thing.started = self.clock.boottime()
        if thing.kind == "docker":
            thing.exits = ()
        if thing.kind == "script":
            runs = self.runs.setdefault((thing.name.app, thing.name.revision), [])
            assert None not in runs, f"{thing.name} was started while it ran"
            if thing.once:
                assert 0 not in runs, f"{thing.name} ran again after it had succeeded"
                assert "lost" not in runs, f"{thing.name} ran again though the outcome of its last run is unknown"
            else:
                self.again.add((thing.name.app, thing.name.revision))
            runs.append(None)
        if (thing.name.app, thing.version) in self.stuck:
            thing.phase = Phase.PAUSED
        code = self.programs.get((thing.name.app, thing.version))
        self.reads(thing, thing.record)
        if code is not None and thing.phase is Phase.RUNNING:
            self.end(thing, code=code)

    def reads(self, thing: Thing, record: str) -> None:
        """Its program reads its files, as ``record`` has them; some it dies of."""
        thing.read = tuple(file.content for file in decode(record).pkg.files) if thing.identity == "me" else ()
        if self.indigestible & set(thing.read):
            self.end(thing, code=9)

    def end(self, thing: Thing, code: int | None = None, signal: str | None = None, lost: bool = False) -> None:
        """The program's last instruction."""
        assert thing.started is not None
        seconds = None if lost else self.clock.boottime() - thing.started
        reason = "exit status unknown" if lost else ""
        self.ended.add((thing.name, thing.life))
        ended = Exit(thing.life, None, self.clock.now(), code, signal, reason=reason, seconds=seconds, lost=lost)
        thing.exits = (*thing.exits, ended)[-2:]
        thing.phase = Phase.EXITED
        if thing.kind == "script":
            # A signal is as good as a code that is none, so that None is what goes on.
            self.runs[thing.name.app, thing.name.revision][-1] = "lost" if lost else -1 if code is None else code  # type: ignore[assignment]
            if code == 0 and thing.name.app not in self.useless:
                self.states[thing.name.app] = 0

    def reboot(self) -> None:
        """The machine goes down: nothing runs any more; of processes nobody saw the end."""
        for thing in self.things.values():
            if thing.identity == "me" and thing.phase in (Phase.RUNNING, Phase.PAUSED):
                self.end(thing, code=137 if thing.kind == "docker" else None, lost=thing.kind != "docker")
            if thing.identity == "me":
                thing.started = None  # the boot clock of another boot says nothing on this one
        self.familiar.clear()
        self.clock.reboot()


class FakeDriver:
    """A driver on the simulated world."""

    def __init__(self, world: World, kinds: frozenset[str], identity: str = "me") -> None:
        self.world = world
        self.kinds = kinds
        self.keeps_exits = "docker" not in kinds
        self.epoch = 0
        self.identity = identity
        self.hints: asyncio.Queue[str] = asyncio.Queue()

    async def open(self) -> None:
        """Nothing to connect."""

    async def close(self) -> None:
        """Nothing to let go of."""

    def _answer(self) -> None:
        if self.kinds & self.world.away:
            raise Unavailable(f"{sorted(self.kinds)[0]} does not answer")

    async def observe(self, app: str) -> Sequence[Observed]:
        return (await self.observe_all()).get(app, ())

    async def observe_all(self) -> Mapping[str, Sequence[Observed]]:
        self._answer()
        seen: dict[str, list[Observed]] = {}
        for thing in self.world.things.values():
            if thing.kind in self.kinds and thing.identity == self.identity:
                seen.setdefault(thing.name.app, []).append(_observed(thing))
        return seen

    async def prepared(self, want: Instance) -> bool:
        self._answer()
        return (want.name.app, want.version) not in self.world.missing

    async def prepare(self, want: Instance) -> None:
        self._answer()
        if (want.name.app, want.version) in self.world.missing:
            raise Missing(f"cannot pull {want.name}: no such image")

    def progress(self, app: str) -> str:
        return ""

    async def start(self, want: Instance, after: int) -> None:
        self._answer()
        self.world.step(f"before create {want.name}")
        thing = self.world.things.get(want.name)
        if thing is not None and thing.identity != self.identity:
            raise Terminal(f"cannot create {want.name}: the name is taken")
        if thing is not None and thing.hash != want.hash:
            if thing.phase in (Phase.RUNNING, Phase.PAUSED):
                self.world.end(thing, signal="SIGTERM")
            del self.world.things[want.name]
            thing, after = None, 0
        if thing is None:
            thing = Thing(want.name, want.pkg.type, want.version, want.hash, want.record, self.identity)
            self.world.begun += 1
            thing.container = self.world.begun
            self.world.things[want.name] = thing
            self.world.effects.append(f"create {want.name}")
        self.world.step(f"before start {want.name}")
        if thing.phase not in (Phase.RUNNING, Phase.PAUSED) and (thing.run <= after or not self.keeps_exits):
            self.world.begin(thing)
            self.world.effects.append(f"start {want.name}")
        self.world.step(f"after start {want.name}")

    async def check(self, want: Instance, seconds: float) -> Executed:
        self._answer()
        self.world.step(f"before check {want.name}")
        if want.name not in self.world.things:
            self.world.things[want.name] = Thing(want.name, want.pkg.type, want.version, want.hash, want.record, self.identity)
        assert self.world.things[want.name].phase in (Phase.CREATED, Phase.EXITED), f"{want.name} was checked while it ran"
        self.world.asked += 1
        self.world.step(f"after check {want.name}")
        if want.name.app in self.world.mute:
            return Executed(None, problem=f"the command did not end within {seconds:g} s")
        answer = self.world.states.get(want.name.app, 1)
        self.world.things[want.name].settled |= answer == 0
        return Executed(answer, "said\n")

    async def stop(self, seen: Observed, signal: str, grace_seconds: float) -> Exit | None:
        self._answer()
        self.world.step(f"before stop {seen.name}")
        thing = self.world.things.get(seen.name)
        if thing is None or thing.phase not in (Phase.RUNNING, Phase.PAUSED):
            return None
        app = seen.name.app
        spared = app in self.world.spared and not self.world.drained and thing in self.world.serving(app)
        self.world.end(thing, signal=signal)
        assert not spared or self.world.serving(app), f"nothing of {app} serves any more without {seen.name}"
        self.world.effects.append(f"stop {seen.name}")
        self.world.step(f"after stop {seen.name}")
        return thing.exits[-1]

    async def reload(self, seen: Observed, want: Instance, signals: Sequence[str]) -> bool:
        self._answer()
        self.world.step(f"before reload {seen.name}")
        thing = self.world.things.get(seen.name)
        if thing is None:
            return False
        assert decode(thing.record).lasting_hash == decode(want.record).lasting_hash, f"{seen.name} cannot become {want.name}"
        thing.hash = ""
        self.world.step(f"before signal {seen.name}")
        self.world.effects.append(f"reload {seen.name}")
        if thing.phase is Phase.RUNNING:
            self.world.reads(thing, want.record)
        self.world.step(f"after signal {seen.name}")
        if seen.name.app in self.world.full:
            raise Transient(f"cannot note what {seen.name} is now: the disk is full")
        if (thing.name.app, seen.hash) in self.world.pre_started or not seen.hash:
            self.world.pre_started.add((thing.name.app, want.hash))
        if self.keeps_exits:
            thing.exits = tuple(one for one in thing.exits if one.run == thing.life)
        thing.hash, thing.record, thing.reloaded = want.hash, want.record, (thing.run, self.world.clock.boottime())
        self.world.step(f"after reload {seen.name}")
        return True

    async def remove(self, seen: Observed) -> None:
        self._answer()
        self.world.step(f"before remove {seen.name}")
        thing = self.world.things.get(seen.name)
        if thing is not None and thing.hash != seen.hash and thing.kind == "docker":
            return  # the name is another container's by now
        thing = self.world.things.pop(seen.name, None)
        assert thing is None or thing.phase not in (Phase.RUNNING, Phase.PAUSED), f"{seen.name} removed while it runs"
        self.world.effects.append(f"remove {seen.name}")
        self.world.step(f"after remove {seen.name}")

    async def resume(self, seen: Observed) -> None:
        self._answer()
        thing = self.world.things.get(seen.name)
        if thing is not None and thing.phase is Phase.PAUSED and (thing.name.app, thing.version) not in self.world.stuck:
            thing.phase = Phase.RUNNING
            self.world.effects.append(f"resume {seen.name}")

    async def rename(self, seen: Observed) -> None:
        self._answer()
        self.world.things[seen.name].misnamed = False
        self.world.effects.append(f"rename {seen.name}")

    async def execute(self, seen: Observed, command: Sequence[str], seconds: float) -> Executed:
        self._answer()
        thing = self.world.things.get(seen.name)
        if thing is None or thing.phase is not Phase.RUNNING:
            raise Unavailable(f"{seen.name} does not run")
        if command[0] == "hook":
            return self._hook(command[1], seen.name)
        return Executed(int(command[-1].partition("exit ")[2] or 0), "said")

    async def output(self, app: str, query: OutputQuery) -> AsyncGenerator[Sequence[OutputLine], None]:
        self._answer()
        written = [line for line in self.world.written.get(app, ()) if query.since is None or line.at >= query.since]
        yield written if query.tail is None else written[len(written) - query.tail :]
        while query.follow:
            yield [await self.world.writing.get()]

    async def run_once(self, want: Instance, command: Sequence[str], seconds: float) -> Executed:
        self._answer()
        if command[0] != "hook":
            return Executed(int(command[-1].partition("exit ")[2] or 0), "said")
        executed = self._hook(command[1], want.name)
        if executed.code == 0:
            self.world.pre_started.add((want.name.app, want.hash))
        self.world.step(f"after pre_start {want.name}")
        return executed

    def _hook(self, kind: str, name: InstanceName) -> Executed:
        self.world.step(f"before {kind} {name}")
        self.world.hooks.append(f"{kind} {name}")
        return Executed(int((name.app, kind) in self.world.refusing), "the hook's words")

    async def collect(self, keep: Mapping[str, Collection[int]]) -> None:
        """Nothing is kept."""

    async def events(self) -> AsyncIterator[str]:
        while True:
            yield await self.hints.get()
            yield ALL_APPS


def _observed(thing: Thing) -> Observed:
    return Observed(
        name=thing.name,
        kind=thing.kind,
        version=thing.version,
        hash=thing.hash,
        ref=str(thing.name),
        phase=thing.phase,
        run=thing.run if thing.kind != "docker" else 0,
        started=thing.started,
        exits=tuple(replace(one) for one in thing.exits) if thing.phase is Phase.EXITED or thing.kind != "docker" else (),
        misnamed=thing.misnamed,
        record=thing.record,
        life=thing.life,
        address="127.0.0.1",
        carries=decode(thing.record).revision if thing.identity == "me" else 0,
        reloaded=thing.reloaded[1] if thing.reloaded and thing.reloaded[0] == thing.run and thing.started is not None else None,
    )


class FakeProber:
    """Asks all probes once at each ``ask``; what fails is up to the world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.courses: dict[str, dict[int, Course]] = {}
        self.specs: dict[str, HealthSpec] = {}
        self.versions: dict[str, str] = {}

    def look(self, head: Head, observed: Sequence[Observed]) -> Mapping[int, Probed]:
        known, now = self.courses.get(head.app, {}), self.world.clock.boottime()
        self.specs[head.app], self.versions[head.app] = head.running.pkg.health, head.running.version
        self.courses[head.app] = {
            replica: known[replica] if replica in known and _speaks_of(known[replica], seen, head) else begin(seen, head, replica, now)
            for replica, seen in targets(head, observed).items()
        }
        self._tell(head.app)
        for seen in observed:
            if seen.hash == head.running.instance_hash and not head.running.pkg.health.probes:
                self.world.verdicts[head.app, seen.name.replica, seen.run_key] = True
        return {replica: course.probed for replica, course in self.courses[head.app].items()}

    def _tell(self, app: str) -> None:
        for replica, course in self.courses[app].items():
            self.world.verdicts[app, replica, course.probed.run] = course.probed.ready and not course.probed.doomed

    def forget(self, app: str) -> None:
        self.courses.pop(app, None)

    def ask(self) -> None:
        """One result of every probe that is due."""
        for app, courses in self.courses.items():
            for kind, probe in self.specs[app].probes.items():
                result = Result((app, self.versions[app], kind) not in self.world.sick, "sick")
                for replica, course in courses.items():
                    courses[replica] = advance(course, kind, result, timing(kind, probe, Defaults()), self.world.clock.boottime())
            self._tell(app)


def _speaks_of(course: Course, seen: Observed, head: Head) -> bool:
    return course.probed.run == seen.run_key and course.probed.by == digest(head.running.pkg)
