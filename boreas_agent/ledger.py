"""Pure: enters what was seen into what is remembered, so that each run and each end counts exactly once.

Attempts are derived from observed facts alone, never from having acted: an agent that dies between an action
and its record finds the same facts afterwards and comes to the same account.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType

from msgspec import Struct, field
from msgspec.structs import replace

from boreas_agent import hooks, schedule
from boreas_agent.backoff import Moment, after_exit, after_stable_running, after_start
from boreas_agent.model import Attempts, Deadline, Event, Exit, Head, InstanceName, Observed, Phase, Probed, ScriptRun
from boreas_agent.planner import sort_out
from boreas_agent.spec import Pkg, ScriptPkg

_NOTHING_PROBED: Mapping[int, Probed] = MappingProxyType({})


class Account(Struct, frozen=True):
    """The attempts by replica, and the exits, events and runs of scripts that are new in them."""

    attempts: Mapping[int, Attempts]
    exits: tuple[tuple[InstanceName, Exit], ...] = ()
    events: tuple[Event, ...] = ()
    runs: tuple[tuple[InstanceName, ScriptRun], ...] = ()
    leftovers: tuple[tuple[InstanceName, Exit], ...] = ()
    """How instances ended that stand for no replica: to be recorded, new or not, before they are removed."""
    hooked: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


def enter(  # noqa: PLR0913  # what is known, what is seen, and both clocks
    head: Head,
    observed: Sequence[Observed],
    moment: Moment,
    wall: datetime,
    probed: Mapping[int, Probed] = _NOTHING_PROBED,
    *,
    drained: bool = False,
) -> Account:
    """Bring ``head.attempts`` (of the running revision) up to what is seen and, of what runs, ``probed``.

    ``wall`` dates the ends that nobody saw, and is what scheduled times are measured by; of an app that is held, or on a ``drained``
    node, none becomes due.
    """
    revision = head.running
    current, rest = sort_out(head, observed)
    attempts: dict[int, Attempts] = {}
    ended: list[tuple[InstanceName, Exit]] = []
    turns: list[Event] = []
    runs: list[tuple[InstanceName, ScriptRun]] = []
    for replica in range(revision.wanted):
        before = _remembered(head, replica, moment)
        seen = current.get(replica)
        name = seen.name if seen else InstanceName(head.app, revision.revision, replica)
        found = probed.get(replica)
        tried, exits = _seen(before, seen, found, head, moment) if seen else _missing(before, revision.pkg, moment, wall)
        ended += [(name, one) for one in exits]
        turns += [Event(kind, f"{name} {words}", head.app, name.revision) for kind, words in _turned(before.probed, tried.probed)]
        if revision.pkg.type == "script":
            runs += [(name, run) for run in _runs(before, tried, exits, seen, moment, wall)]
            attended = schedule.attend(tried, revision, wall) if head.hold is None and not drained else schedule.Attended(tried)
            tried = attended.attempts
            runs += [(name, run) for run in attended.unrun]
            turns += [Event(kind, f"{name}: {words}", head.app, name.revision) for kind, words in attended.events]
        if tried != Attempts(replica, revision.instance_hash):
            attempts[replica] = tried
    events = tuple(Event("Exited", _tell(name, one), head.app, name.revision) for name, one in ended)
    leftovers = tuple((seen.name, one) for seen in rest for one in seen.exits)
    return Account(attempts, tuple(ended), (*events, *turns), tuple(runs), leftovers, hooks.still_seen(head.hooked, observed))


def standing(head: Head, observed: Sequence[Observed], by: str, now: float) -> dict[int, Attempts]:
    """The attempts of a running revision that was healthy before and has just become the running one again.

    What is there of it begins without a failure: its ends belong to another time. What runs is ready until its probes (``by``) say
    otherwise, for nobody has asked it while another revision was on its way, and it may have served all the while.
    """
    made_of = head.running.instance_hash
    current, _ = sort_out(head, observed)
    attempts = {}
    for replica, seen in current.items():
        known = tuple(f"{seen.name.revision}.{one.run}" for one in seen.exits)
        if seen.up:
            found = Probed(seen.run_key, by, started=True, ready=True, well_since=now)
            attempts[replica] = Attempts(replica, made_of, started=True, recorded=known, probed=found)
        else:
            attempts[replica] = Attempts(replica, made_of, recorded=known)
    return attempts


def _remembered(head: Head, replica: int, moment: Moment) -> Attempts:
    tried = head.attempts.get(replica)
    if tried is None or tried.hash != head.running.instance_hash:
        return Attempts(replica, head.running.instance_hash)
    checked = tried.checked and replace(tried.checked, again=tried.checked.again.rebased(moment.boot_id, moment.boottime))
    return replace(tried, not_before=_rebased(tried.not_before, moment), restarted=_rebased(tried.restarted, moment), checked=checked)


def _rebased(deadline: Deadline | None, moment: Moment) -> Deadline | None:
    return deadline.rebased(moment.boot_id, moment.boottime) if deadline else None


def _seen(tried: Attempts, seen: Observed, found: Probed | None, head: Head, moment: Moment) -> tuple[Attempts, list[Exit]]:
    """The attempts after the runs of ``seen``: ended ones that are new, then the one under way, of which its probes have ``found``."""
    pkg = head.running.pkg
    new: list[Exit] = []
    for one in seen.exits:
        key = f"{seen.name.revision}.{one.run}"
        if key in tried.recorded:
            continue
        if not tried.started:
            tried = after_start(tried, pkg.restart, moment)
        failed = head.hooked.get(hooks.run_key(seen, one.run))
        if failed:
            told = _doomed(one, failed, 0.0)
        else:
            told = _with_findings(one, tried.probed, seen) if tried.probed is not None and tried.probed.run == key else one
        told = _timed_out(told, pkg) if tried.overdue == key else told
        tried = after_exit(tried, key, told, pkg, _ended(seen, one, moment))
        new.append(told)
    if seen.up:
        if not tried.started:
            tried = after_start(tried, pkg.restart, moment)
        if seen.phase is Phase.RUNNING and tried.probed != found:
            tried = replace(tried, probed=found)
        if tried.overdue != seen.run_key and _is_overdue(seen, pkg, moment.boottime):
            tried = replace(tried, overdue=seen.run_key)
        since = seen.started if tried.probed is None else tried.probed.well_since
        long = since is not None and moment.boottime - since >= pkg.restart.reset_after_seconds
        if tried.failures and long and pkg.type != "script":  # a script is to end, not to run long
            tried = after_stable_running(tried)
    return tried, new


def _with_findings(one: Exit, probed: Probed, seen: Observed) -> Exit:
    """The end of a run that had probes: whether one of them was its cause, and how long it had been well."""
    if probed.doomed:
        return _doomed(one, probed.doomed, probed.well_seconds)
    if probed.well_since is None:
        return replace(one, well_seconds=0.0)
    if one.seconds is None:
        return one
    before = max(0.0, probed.well_since - seen.started) if seen.started is not None else 0.0
    return replace(one, well_seconds=max(0.0, one.seconds - before))


def _doomed(one: Exit, why: str, well_seconds: float) -> Exit:
    return replace(one, unhealthy=why, reason=f"stopped: {why}", well_seconds=well_seconds)


def _is_overdue(seen: Observed, pkg: Pkg, now: float) -> bool:
    limit = pkg.timeout_seconds if isinstance(pkg, ScriptPkg) else None
    return limit is not None and seen.started is not None and now - seen.started >= limit


def _timed_out(one: Exit, pkg: Pkg) -> Exit:
    """The end of a run that was on record as lasting too long: whatever its status, it counts as a failure."""
    assert isinstance(pkg, ScriptPkg)
    words = f"timed out after {pkg.timeout_seconds:g} s"
    return replace(one, unhealthy=words, timed_out=True, reason=f"stopped: {words}")


def _runs(  # noqa: PLR0913, PLR0917  # what is known, what is seen, and both clocks
    before: Attempts, tried: Attempts, exits: Sequence[Exit], seen: Observed | None, moment: Moment, wall: datetime
) -> list[ScriptRun]:
    """The runs of a script that have ended since ``before``, and the one that goes on and is not on record yet."""
    at = before.turn.at if before.turn else None
    runs = [ScriptRun.ended(one, at) for one in exits]
    if seen is not None and tried.started and (exits or not before.started):
        began = wall - timedelta(seconds=max(0.0, moment.boottime - seen.started)) if seen.started is not None else wall
        runs.append(ScriptRun(seen.life, at, began))
    return runs


def _turned(before: Probed | None, now: Probed | None) -> list[tuple[str, str]]:
    """The turns worth an event: kind and words."""
    if now is None or before == now:
        return []
    same = before is not None and (before.run, before.by) == (now.run, now.by)
    if now.doomed and not (same and before is not None and before.doomed):
        return [("Unhealthy", f"is unhealthy: {now.doomed}")]
    if now.ready and not (same and before is not None and before.ready):
        return [("Ready", "is ready")]
    if not now.ready and same and before is not None and before.ready:
        return [("Unready", f"is not ready: {now.why}")]
    return []


def _ended(seen: Observed, one: Exit, moment: Moment) -> Moment:
    """When ``one`` ended, where that is known: so that an account that could not be recorded comes out the same the next time."""
    if one is seen.last_exit and seen.started is not None and one.seconds is not None:
        return replace(moment, boottime=min(moment.boottime, seen.started + one.seconds))
    return moment


def _missing(tried: Attempts, pkg: Pkg, moment: Moment, wall: datetime) -> tuple[Attempts, list[Exit]]:
    """An instance that was running and is not there any more was removed by someone else."""
    if not tried.started:
        return tried, []
    gone = Exit(
        run=f"gone@{wall.timestamp():.3f}",
        started_at=None,
        exited_at=wall,
        reason="exit status unknown: it was removed by someone",
        lost=True,
    )
    return after_exit(tried, gone.run, gone, pkg, moment), [gone]


def _tell(name: InstanceName, one: Exit) -> str:
    lasted = f" after {one.seconds:.3g} s" if one.seconds is not None else ""
    why = f" ({one.unhealthy})" if one.unhealthy else ""
    return f"{name} {one.how}{lasted}{why}" if one.known else f"{name}: {one.how}{why}"
