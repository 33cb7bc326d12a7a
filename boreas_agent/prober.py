"""Asks the probes: a task for each, as long as the run that it asks about goes on.

It is told what runs by every pass of an app, and hands back what is known of it by then; in between it wakes the app
when a verdict has changed, not when a result has come. What it knows of a run survives in the app's head.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from boreas_agent.checks import ask
from boreas_agent.clock import Clock
from boreas_agent.drivers.base import Driver
from boreas_agent.drivers.mailbox import Mailbox
from boreas_agent.errors import BoreasError, Unavailable
from boreas_agent.gate import Gate
from boreas_agent.model import Executed, Head, Observed, Probed
from boreas_agent.probing import Course, Defaults, Result, Timing, advance, begin, digest, targets, timing, told_by_engine
from boreas_agent.spec.probes import ExecCheck, HealthSpec, Probe, ProbeKind

log = logging.getLogger(__name__)

SPREAD_SECONDS = 0.1
"""The first questions to new instances are spread over so long (or the interval); those to instances found running, over the interval."""
_SHOWN = 200
_OWN_SECONDS = 15.0
"""What a driver may take for its own part of an exec probe, beyond the probe's own time."""


@dataclass(slots=True, eq=False)
class _Watched:
    """One run that is asked about."""

    seen: Observed
    health: HealthSpec
    course: Course
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def stop(self) -> None:
        for task in self.tasks:
            task.cancel()


class Prober:
    """For one event loop (see ``probing.Probes``). ``chance``: a draw from [0, 1)."""

    def __init__(self, drivers: Sequence[Driver], defaults: Defaults, clock: Clock, chance: Callable[[], float]) -> None:
        self._drivers: Mapping[str, Driver] = {kind: driver for driver in drivers for kind in driver.kinds}
        self._defaults = defaults
        self._clock = clock
        self._chance = chance
        self._watched: dict[str, dict[int, _Watched]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = Mailbox()
        self._ports = Gate(size=256, share=32)
        self._commands = Gate(size=16, share=4)

    async def events(self) -> AsyncIterator[str]:
        """Apps of which a verdict has changed. For one listener."""
        while True:
            yield await self._changed.take()

    async def close(self) -> None:
        """Ask nothing any more."""
        for app in list(self._watched):
            self.forget(app)
        if self._tasks:
            await asyncio.wait(self._tasks)

    # --- whom to ask -----------------------------------------------------------------------------

    def look(self, head: Head, observed: Sequence[Observed]) -> Mapping[int, Probed]:
        """By replica, what is known of the running instances; from now on these are asked, and no others of the app."""
        wanted = targets(head, observed)
        before = self._watched.get(head.app, {})
        if not wanted and not before:
            return {}
        by = digest(head.running.pkg)
        kept = {replica: one for replica, one in before.items() if replica in wanted and _same(one, wanted[replica], by)}
        for replica, one in before.items():
            if replica not in kept:
                one.stop()
        self._watched[head.app] = {
            replica: kept[replica] if replica in kept else self._begin(seen, head, replica) for replica, seen in wanted.items()
        }
        for replica, one in self._watched[head.app].items():
            one.seen = wanted[replica]
            if one.health.readiness is None and one.seen.checked:
                one.course = told_by_engine(one.course, one.seen, self._clock.boottime())
        if not wanted:
            del self._watched[head.app]
        return {replica: one.course.probed for replica, one in self._watched.get(head.app, {}).items()}

    def forget(self, app: str) -> None:
        """Nothing is left of the app."""
        for one in self._watched.pop(app, {}).values():
            one.stop()

    def _begin(self, seen: Observed, head: Head, replica: int) -> _Watched:
        now = self._clock.boottime()
        watched = _Watched(seen, head.running.pkg.health, begin(seen, head, replica, now))
        self._ask_what_is_due(watched, found_running=bool(watched.course.rows))
        return watched

    def _ask_what_is_due(self, watched: _Watched, *, found_running: bool) -> None:
        for kind, probe in watched.health.probes.items():
            if watched.course.due(kind):
                numbers = timing(kind, probe, self._defaults)
                spread = numbers.interval if found_running else min(numbers.interval, SPREAD_SECONDS)
                work = self._ask_for_ever(watched, kind, probe, spread * self._chance())
                task = asyncio.get_running_loop().create_task(work)
                for tasks in (watched.tasks, self._tasks):
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)

    # --- asking ----------------------------------------------------------------------------------

    async def _ask_for_ever(self, watched: _Watched, kind: ProbeKind, probe: Probe, spread: float) -> None:
        numbers = timing(kind, probe, self._defaults)
        began = watched.seen.started if watched.seen.started is not None else self._clock.boottime()
        await asyncio.sleep(max(0.0, began + numbers.delay - self._clock.boottime()) + spread)
        asked, counted_at = 0, float("-inf")
        while watched.course.due(kind):
            at = self._clock.boottime()
            result = await self._ask(watched, probe, numbers)
            asked += 1
            counts = result.ok is True or at - counted_at >= numbers.interval * 0.9
            counted_at = at if counts else counted_at
            self._take(watched, kind, Result(result.ok, result.message, counts), numbers)
            await asyncio.sleep(max(0.0, at + self._pause(watched, kind, numbers, asked) - self._clock.boottime()))

    def _pause(self, watched: _Watched, kind: ProbeKind, numbers: Timing, asked: int) -> float:
        """Seconds from one question to the next. The first pass is followed by one that is drawn: what came up together drifts apart."""
        passes = watched.course.rows[kind].passes if kind in watched.course.rows else 0
        if not passes:
            return numbers.pause(asked)
        return numbers.interval * self._chance() if passes == 1 and watched.course.rows[kind].successes else numbers.interval

    def _take(self, watched: _Watched, kind: ProbeKind, result: Result, numbers: Timing) -> None:
        before = watched.course.probed
        watched.course = advance(watched.course, kind, result, numbers, self._clock.boottime())
        if watched.course.probed != before:
            if watched.course.probed.started and not before.started:
                self._ask_what_is_due(watched, found_running=False)
            self._changed.put(watched.seen.name.app)

    async def _ask(self, watched: _Watched, probe: Probe, numbers: Timing) -> Result:
        app, check = watched.seen.name.app, probe.check
        try:
            if isinstance(check, ExecCheck):
                async with self._commands.place(app), asyncio.timeout(numbers.timeout + _OWN_SECONDS):
                    return _judged(await self._driver(watched).execute(watched.seen, check.command, numbers.timeout))
            async with self._ports.place(app):
                return await ask(watched.seen.address, check, numbers.timeout)
        except (Unavailable, TimeoutError) as error:
            return Result(None, str(error))
        except BoreasError as error:
            return Result(False, str(error))
        except Exception:
            log.exception("a probe could not be asked", extra={"app": app})
            return Result(None, "the probe could not be asked")

    def _driver(self, watched: _Watched) -> Driver:
        return self._drivers[watched.seen.kind]


def _same(one: _Watched, seen: Observed, by: str) -> bool:
    return one.course.probed.run == seen.run_key and one.course.probed.by == by and one.course.gated >= bool(seen.checked)


def _judged(executed: Executed) -> Result:
    why = executed.why_not(_SHOWN)
    return Result(not why, why)
