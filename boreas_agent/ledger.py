"""Pure: enters what was seen into what is remembered, so that each run and each end counts exactly once.

Attempts are derived from observed facts alone, never from having acted: an agent that dies between an action
and its record finds the same facts afterwards and comes to the same account.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from boreas_agent.backoff import Moment, after_exit, after_stable_running, after_start
from boreas_agent.model import Attempts, Deadline, Event, Exit, Head, InstanceName, Observed, Phase
from boreas_agent.planner import sort_out
from boreas_agent.spec import Pkg


@dataclass(frozen=True, slots=True)
class Account:
    """The attempts by replica, and the exits and events that are new in them."""

    attempts: Mapping[int, Attempts]
    exits: tuple[tuple[InstanceName, Exit], ...] = ()
    events: tuple[Event, ...] = ()
    leftovers: tuple[tuple[InstanceName, Exit], ...] = ()
    """How instances ended that stand for no replica: to be recorded, new or not, before they are removed."""


def enter(head: Head, observed: Sequence[Observed], moment: Moment, wall: datetime) -> Account:
    """Bring ``head.attempts`` up to what is seen; ``wall`` dates the ends that nobody saw."""
    revision = head.revision
    current, rest = sort_out(head, observed)
    attempts: dict[int, Attempts] = {}
    ended: list[tuple[InstanceName, Exit]] = []
    for replica in range(revision.wanted):
        before = _remembered(head, replica, moment)
        seen = current.get(replica)
        name = seen.name if seen else InstanceName(head.app, revision.revision, replica)
        tried, exits = _seen(before, seen, revision.pkg, moment) if seen else _missing(before, revision.pkg, moment, wall)
        ended += [(name, one) for one in exits]
        if tried != Attempts(replica, revision.instance_hash):
            attempts[replica] = tried
    events = tuple(Event("Exited", _tell(name, one), head.app, name.revision) for name, one in ended)
    leftovers = tuple((seen.name, one) for seen in rest for one in seen.exits)
    return Account(attempts, tuple(ended), events, leftovers)


def _remembered(head: Head, replica: int, moment: Moment) -> Attempts:
    tried = head.attempts.get(replica)
    if tried is None or tried.hash != head.revision.instance_hash:
        return Attempts(replica, head.revision.instance_hash)
    return replace(tried, not_before=_rebased(tried.not_before, moment), restarted=_rebased(tried.restarted, moment))


def _rebased(deadline: Deadline | None, moment: Moment) -> Deadline | None:
    return deadline.rebased(moment.boot_id, moment.boottime) if deadline else None


def _seen(tried: Attempts, seen: Observed, pkg: Pkg, moment: Moment) -> tuple[Attempts, list[Exit]]:
    """The attempts after the runs of ``seen``: ended ones that are new, then the one under way."""
    new: list[Exit] = []
    for one in seen.exits:
        key = f"{seen.name.revision}.{one.run}"
        if key in tried.recorded:
            continue
        if not tried.started:
            tried = after_start(tried, pkg.restart, moment)
        tried = after_exit(tried, key, one, pkg, _ended(seen, one, moment))
        new.append(one)
    if seen.phase in (Phase.RUNNING, Phase.PAUSED):
        if not tried.started:
            tried = after_start(tried, pkg.restart, moment)
        if tried.failures and seen.started is not None and moment.boottime - seen.started >= pkg.restart.reset_after_seconds:
            tried = after_stable_running(tried)
    return tried, new


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
        run=f"gone-{tried.restarts}", started_at=None, exited_at=wall, reason="exit status unknown: it was removed by someone", lost=True
    )
    return after_exit(tried, gone.run, gone, pkg, moment), [gone]


def _tell(name: InstanceName, one: Exit) -> str:
    lasted = f" after {one.seconds:.3g} s" if one.seconds is not None else ""
    return f"{name} {one}{lasted}" if one.known else f"{name}: {one}"
