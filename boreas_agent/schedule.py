"""Pure: which scheduled times of a script are due, and what becomes of each of them.

Scheduled times are wall-clock by nature. Each is decided on once, in order: what was decided on is never due again, however the clock is
set. Of those that were missed only the last one is made up for. The attempts of a script with a schedule are those of its
present turn: the scheduled time that it runs for, or ran for last.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import takewhile
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from boreas_agent.backoff import finished, given_up
from boreas_agent.checking import final_words
from boreas_agent.clock import timestamp
from boreas_agent.model import Attempts, Revision, ScriptRun, Turn
from boreas_agent.spec import Pkg, Schedule, ScriptPkg

MOST_MISSED = 100
"""So many missed times are told of one by one, the newest."""
_LOOK_BACK_SECONDS = (100.0, 6000.0, 360_000.0, 8_640_000.0)
"""From how long before now on scheduled times are looked for, longer and longer, until there are enough of them."""


class Attended(Struct, frozen=True):
    """The attempts once all that is due has been decided on; scheduled runs that there will not be; and kinds and words of events."""

    attempts: Attempts
    unrun: tuple[ScriptRun, ...] = ()
    events: tuple[tuple[str, str], ...] = ()


def of(revision: Revision) -> Schedule | None:
    """The schedule that is in force."""
    return revision.pkg.schedule if isinstance(revision.pkg, ScriptPkg) and revision.wanted else None


def next_run(tried: Attempts | None, revision: Revision) -> datetime | None:
    """The first scheduled time that nothing has been decided on; None where there is none."""
    schedule = of(revision)
    if schedule is None:
        return None
    return schedule.first(tried.turn.upto if tried is not None and tried.turn is not None else revision.submitted_at)


def due(schedule: Schedule, after: datetime, now: datetime) -> Sequence[datetime]:
    """The scheduled times after ``after`` and not after ``now``, oldest first; of more than ``MOST_MISSED`` + 1 the newest of them."""
    first = schedule.first(after)
    if first is None or first > now:
        return ()
    starts = [now - timedelta(seconds=back) for back in _LOOK_BACK_SECONDS if timedelta(seconds=back) < now - after]
    found: list[datetime] = []
    for start in (*starts, after):
        found = list(takewhile(lambda at: at <= now, schedule.times(start)))
        if len(found) > MOST_MISSED:
            break
    return found[-MOST_MISSED - 1 :]


def attend(tried: Attempts, revision: Revision, now: datetime) -> Attended:
    """Decide on all that is due at ``now`` (wall clock). ``tried`` must count every run and every end that was seen."""
    schedule = of(revision)
    if schedule is None:
        return Attended(tried)
    first = _first_turn(tried, revision, now)
    tried = replace(tried, turn=first) if tried.turn is None and first.wanted else tried
    turn, times, unrun = tried.turn or first, due(schedule, (tried.turn or first).upto, now), list[ScriptRun]()
    if turn.wanted and turn.at is not None and not _begun(tried) and _too_late(schedule, turn.at, now):
        unrun.append(_unrun(turn.at, "missed"))
        turn = replace(_after(tried, turn, revision.pkg), wanted=False, at=None)
        tried = _anew(tried, turn)
    if not times and turn.queued is None:
        return Attended(tried, tuple(unrun), _told(unrun))
    free, fresh = _over(tried, revision), False
    if free and turn.queued is not None:
        waited, turn = turn.queued, replace(turn, queued=None)
        if _too_late(schedule, waited, now):
            unrun.append(_unrun(waited, "missed"))
            tried = replace(tried, turn=turn)
        else:
            tried = _begin(tried, turn, revision, waited)
            free, fresh = False, True
    if not times:
        return Attended(tried, tuple(unrun), _told(unrun))
    *older, newest = times
    unrun += [_unrun(at, "missed") for at in older]
    turn = replace(tried.turn or turn, upto=newest)
    if _too_late(schedule, newest, now):
        unrun.append(_unrun(newest, "missed"))
        tried = replace(tried, turn=turn)
    elif free or not (fresh or _begun(tried)):
        if not free and turn.at is not None:
            unrun.append(_unrun(turn.at, "missed"))
        tried = _begin(tried, turn, revision, newest)
    elif schedule.overlap == "queue" and turn.queued is None:
        tried = replace(tried, turn=replace(turn, queued=newest))
    else:
        unrun.append(_unrun(newest, "skipped"))
        tried = replace(tried, turn=turn)
    return Attended(tried, tuple(unrun), _told(unrun))


def _first_turn(tried: Attempts, revision: Revision, now: datetime) -> Turn:
    """Where a revision stands of which nothing is on record: times are due from when it was asked for.

    A restart wants a run at once. What runs, or has run, was begun by an agent whose database is lost: for which time nobody
    knows, so none until now is due again.
    """
    if tried.started or tried.last_exit is not None:
        return Turn(now, wanted=True)
    return Turn(revision.submitted_at, wanted=revision.kind == "restart")


def _over(tried: Attempts, revision: Revision) -> bool:
    """Nothing more will be run for the present turn."""
    if tried.turn is None or not tried.turn.wanted:
        return True
    return not tried.started and (finished(tried, revision.pkg) or given_up(tried, revision.pkg))


def _begun(tried: Attempts) -> bool:
    """Something has been run for the present turn; one for which nothing was gives way to a newer one."""
    return tried.started or tried.last_exit is not None


def _begin(tried: Attempts, turn: Turn, revision: Revision, at: datetime) -> Attempts:
    """A new turn, in which nothing has been tried yet."""
    return _anew(tried, replace(_after(tried, turn, revision.pkg), wanted=True, at=at))


def _after(tried: Attempts, turn: Turn, pkg: Pkg) -> Turn:
    """``turn`` with how it ended as what was before it; one in which nothing was tried leaves that as it was."""
    ended = tried.last_exit
    if ended is not None:
        return replace(turn, succeeded=ended.ok, failed="" if ended.ok else final_words(tried, pkg))
    return replace(turn, succeeded=False, failed=tried.last_failure) if tried.last_failure else turn


def _anew(tried: Attempts, turn: Turn) -> Attempts:
    return replace(tried, turn=turn, failures=0, exits=0, free=False, not_before=None, last_failure="", last_exit=None)


def _too_late(schedule: Schedule, at: datetime, now: datetime) -> bool:
    limit = schedule.starting_deadline_seconds
    return limit is not None and (now - at).total_seconds() > limit


def _unrun(at: datetime, outcome: Literal["skipped", "missed"]) -> ScriptRun:
    return ScriptRun(f"{outcome} {timestamp(at)}", at, outcome=outcome)


def _told(unrun: Sequence[ScriptRun]) -> tuple[tuple[str, str], ...]:
    skipped = [run.scheduled_at for run in unrun if run.outcome == "skipped"]
    missed = [run.scheduled_at for run in unrun if run.outcome == "missed"]
    told = [("RunSkipped", f"the run scheduled for {timestamp(at)} is skipped: the one before it has not ended") for at in skipped if at]
    if missed and missed[0] and missed[-1]:
        count = f"{len(missed)} scheduled runs were" if len(missed) > 1 else "a scheduled run was"
        more = "at least " if len(missed) >= MOST_MISSED else ""
        span = f"{timestamp(missed[0])} to {timestamp(missed[-1])}" if len(missed) > 1 else timestamp(missed[0])
        told.append(("RunMissed", f"{more}{count} missed: {span}"))
    return tuple(told)
