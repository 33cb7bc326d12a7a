"""A simulated machine: what survives the agent's death, and drivers that act on it.

The world counts the agent's steps (each effect, each commit, before and after), so that a test can cut the
agent's life at any of them by ``Crash``. It also checks, at every effect, what must never happen.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from boreas_agent.drivers.base import ALL_APPS
from boreas_agent.errors import Terminal, Transient, Unavailable
from boreas_agent.model import Executed, Exit, Head, Instance, InstanceName, Observed, Phase, Probed
from boreas_agent.probe_spec import HealthSpec, ProbeKind
from boreas_agent.probing import Course, Defaults, Result, advance, begin, digest, targets, timing


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


class World:
    """Everything outside the agent."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.things: dict[InstanceName, Thing] = {}
        self.away: set[str] = set()
        self.missing: set[tuple[str, str]] = set()  # (app, version) whose image cannot be fetched
        self.programs: dict[tuple[str, str], int | None] = {}  # exit code at once, None = runs for ever
        self.runs: dict[tuple[str, int], list[int | None]] = {}  # of scripts: by revision, how each run ended
        self.ended: set[tuple[InstanceName, str]] = set()  # every run that ended while somebody could find out
        self.sick: set[tuple[str, ProbeKind]] = set()  # (app, kind of probe) that fails, for versions other than 'bad' too
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

    def begin(self, thing: Thing) -> None:
        """The program's first instruction."""
        others = [t for t in self.running(thing.name.app) if t.name.replica == thing.name.replica and t is not thing]
        assert not others, f"{thing.name} started beside {others[0].name}"
        thing.run += 1
        thing.phase = Phase.RUNNING
        thing.started = self.clock.boottime()
        if thing.kind == "docker":
            thing.exits = ()
        if thing.kind == "script":
            runs = self.runs.setdefault((thing.name.app, thing.name.revision), [])
            assert 0 not in runs, f"{thing.name} ran again after it had succeeded"
            assert "lost" not in runs, f"{thing.name} ran again though the outcome of its last run is unknown"
            runs.append(None)
        code = self.programs.get((thing.name.app, thing.version))
        if code is not None:
            self.end(thing, code=code)

    def end(self, thing: Thing, code: int | None = None, signal: str | None = None, lost: bool = False) -> None:
        """The program's last instruction."""
        assert thing.started is not None
        seconds = None if lost else self.clock.boottime() - thing.started
        reason = "exit status unknown" if lost else ""
        run = f"{thing.run}" if thing.kind != "docker" else f"{thing.container}@{thing.run}"
        self.ended.add((thing.name, run))
        ended = Exit(run, None, self.clock.now(), code, signal, reason=reason, seconds=seconds, lost=lost)
        thing.exits = (*thing.exits, ended)[-2:]
        thing.phase = Phase.EXITED
        if thing.kind == "script":
            self.runs[thing.name.app, thing.name.revision][-1] = "lost" if lost else code  # type: ignore[assignment]

    def reboot(self) -> None:
        """The machine goes down: nothing runs any more; of processes nobody saw the end."""
        for thing in self.things.values():
            if thing.identity == "me" and thing.phase in (Phase.RUNNING, Phase.PAUSED):
                self.end(thing, code=137 if thing.kind == "docker" else None, lost=thing.kind != "docker")
            if thing.identity == "me":
                thing.started = None  # the boot clock of another boot says nothing on this one
        self.clock.reboot()


class FakeDriver:
    """A driver on the simulated world."""

    def __init__(self, world: World, kinds: frozenset[str], identity: str = "me") -> None:
        self.world = world
        self.kinds = kinds
        self.keeps_exits = "docker" not in kinds
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
            raise Transient(f"cannot pull {want.name}: no such image")

    async def start(self, want: Instance, after: int) -> None:
        self._answer()
        self.world.step(f"before create {want.name}")
        thing = self.world.things.get(want.name)
        if thing is not None and thing.identity != self.identity:
            raise Terminal(f"cannot create {want.name}: the name is taken")
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

    async def stop(self, seen: Observed, signal: str, grace_seconds: float) -> Exit | None:
        self._answer()
        self.world.step(f"before stop {seen.name}")
        thing = self.world.things.get(seen.name)
        if thing is None or thing.phase not in (Phase.RUNNING, Phase.PAUSED):
            return None
        self.world.end(thing, signal=signal)
        self.world.effects.append(f"stop {seen.name}")
        self.world.step(f"after stop {seen.name}")
        return thing.exits[-1]

    async def remove(self, seen: Observed) -> None:
        self._answer()
        self.world.step(f"before remove {seen.name}")
        thing = self.world.things.pop(seen.name, None)
        assert thing is None or thing.phase not in (Phase.RUNNING, Phase.PAUSED), f"{seen.name} removed while it runs"
        self.world.effects.append(f"remove {seen.name}")
        self.world.step(f"after remove {seen.name}")

    async def resume(self, seen: Observed) -> None:
        self._answer()
        thing = self.world.things.get(seen.name)
        if thing is not None and thing.phase is Phase.PAUSED:
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
        return Executed(int(command[-1].partition("exit ")[2] or 0), "said")

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
        life=f"{thing.run}" if thing.kind != "docker" else f"{thing.container}@{thing.run}",
        address="127.0.0.1",
    )


class FakeProber:
    """Asks all probes once at each ``ask``; what fails is up to the world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.courses: dict[str, dict[int, Course]] = {}
        self.specs: dict[str, HealthSpec] = {}

    def look(self, head: Head, observed: Sequence[Observed]) -> Mapping[int, Probed]:
        known, now = self.courses.get(head.app, {}), self.world.clock.boottime()
        self.specs[head.app] = head.revision.pkg.health
        self.courses[head.app] = {
            replica: known[replica] if replica in known and _speaks_of(known[replica], seen, head) else begin(seen, head, replica, now)
            for replica, seen in targets(head, observed).items()
        }
        return {replica: course.probed for replica, course in self.courses[head.app].items()}

    def forget(self, app: str) -> None:
        self.courses.pop(app, None)

    def ask(self) -> None:
        """One result of every probe that is due."""
        for app, courses in self.courses.items():
            for kind, probe in self.specs[app].probes.items():
                result = Result((app, kind) not in self.world.sick, "sick")
                for replica, course in courses.items():
                    courses[replica] = advance(course, kind, result, timing(kind, probe, Defaults()), self.world.clock.boottime())


def _speaks_of(course: Course, seen: Observed, head: Head) -> bool:
    return course.probed.run == seen.run_key and course.probed.by == digest(head.revision.pkg)
