"""Pure: from what is wanted and what is seen to what to do, and when to look again.

The plan is a value; whoever carries it out decides nothing. For a new revision (strategy recreate) everything is
prepared first, then the old instances are stopped and removed, then the new ones are started: the
old ones serve until the new ones can. While preparing is in backoff the old ones are left alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from boreas_agent.backoff import finished, given_up
from boreas_agent.errors import Invalid
from boreas_agent.model import (
    Action,
    Attempts,
    Head,
    Observed,
    Phase,
    Plan,
    Prepare,
    Remove,
    Rename,
    Resume,
    Start,
    Stop,
)
from boreas_agent.records import decode, instances
from boreas_agent.spec import StopPolicy

SETTLE_SECONDS = 1.0
"""An instance younger than this is not replaced yet: of revisions that follow each other within a second
only the last is started, instead of each in its turn. One that started in the future did so before a reboot."""


def plan(head: Head, observed: Sequence[Observed], now: float) -> Plan:
    """The steps that lead from ``observed`` to the head's revision; ``now`` in boot seconds.

    ``head.attempts`` must already count every exit in ``observed`` and be rebased to this boot.
    """
    if head.hold is not None:
        return Plan()
    replicas = head.revision.wanted
    current, rest = sort_out(head, observed)
    surplus = [seen for seen in rest if not replicas or seen.hash == head.revision.instance_hash]
    superseded = [seen for seen in rest if replicas and seen.hash != head.revision.instance_hash]
    needs = [_need(head, replica, current.get(replica), now) for replica in range(replicas)]
    unhealthy = tuple(need.stop for need in needs if need.stop is not None)

    due = {replica: need.start for replica, need in enumerate(needs) if need.start is not None}
    creating = [replica for replica in due if replica not in current]
    gates = [need.wake_at for need in needs if need.wake_at is not None]
    unsettled = [at for seen in superseded if (at := _settles_at(seen)) is not None and now < at <= now + SETTLE_SECONDS]
    if superseded and (unsettled or (gates and not creating and not current)):
        stops, removes = _end(surplus, head)
        return Plan(tuple(step for step in ((*stops, *unhealthy), removes) if step), min([*unsettled, *gates]))

    wants = instances(head.revision, due) if due else {}
    prepare = tuple(Prepare(wants[replica], due[replica]) for replica in creating[:1])
    repairs = tuple(action for need in needs for action in need.repairs)
    starts = tuple(Start(want, current[replica].run if replica in current else 0, due[replica]) for replica, want in wants.items())
    stops, removes = _end([*surplus, *superseded], head)
    steps = (prepare, (*stops, *unhealthy), starts, repairs, removes)
    return Plan(tuple(step for step in steps if step), min(gates, default=None))


def sort_out(head: Head, observed: Sequence[Observed]) -> tuple[dict[int, Observed], list[Observed]]:
    """The instance that stands for each wanted replica, and all the others.

    Of two for one replica a running one is kept, then a rightly named one, then the one seen first.
    """
    current: dict[int, Observed] = {}
    rest: list[Observed] = []
    alive = {Phase.RUNNING: 0, Phase.PAUSED: 1}
    for seen in sorted(observed, key=lambda seen: (alive.get(seen.phase, 2), seen.misnamed)):
        replica = seen.name.replica
        fits = seen.hash == head.revision.instance_hash and replica < head.revision.wanted and replica not in current
        if fits:
            current[replica] = seen
        else:
            rest.append(seen)
    return current, rest


@dataclass(frozen=True, slots=True)
class _Need:
    """What one replica needs: repairs; to be stopped, so as to be started again; a start that is due, by its cause; or when one will be."""

    repairs: tuple[Action, ...] = ()
    stop: Stop | None = None
    start: str | None = None
    wake_at: float | None = None


def _need(head: Head, replica: int, seen: Observed | None, now: float) -> _Need:
    pkg, tried = head.revision.pkg, head.attempts.get(replica) or Attempts(replica, head.revision.instance_hash)
    repairs: tuple[Action, ...] = ()
    if seen is not None and seen.misnamed:
        repairs += (Rename(seen, "it was renamed"),)
    if seen is not None and seen.phase is Phase.PAUSED:
        repairs += (Resume(seen, "it was paused"),)
    if seen is not None and seen.phase in (Phase.RUNNING, Phase.PAUSED):
        found = tried.findings(seen)
        if found is not None and found.doomed and seen.phase is Phase.RUNNING:
            return _Need(stop=Stop(seen, pkg.stop.signal, pkg.stop.grace_seconds, found.doomed))
        return _Need(repairs)
    if finished(tried, pkg) or given_up(tried, pkg):
        return _Need(repairs)
    if tried.not_before is not None and tried.not_before.at > now:
        return _Need(repairs, wake_at=tried.not_before.at)
    return _Need(repairs, start=_why_start(head, tried))


def _why_start(head: Head, tried: Attempts) -> str:
    if tried.last_failure:
        return f"trying again: {tried.last_failure}"
    if tried.last_exit is not None and tried.last_exit.unhealthy:
        return f"it was stopped: {tried.last_exit}"
    if tried.last_exit is not None:
        return f"it {tried.last_exit}" if tried.last_exit.signal is None and tried.last_exit.known else f"it ended: {tried.last_exit}"
    return f"revision {head.revision.revision} ({head.revision.version}) wants it"


def _settles_at(seen: Observed) -> float | None:
    if seen.phase not in (Phase.RUNNING, Phase.EXITED) or seen.started is None:
        return None
    return seen.started + SETTLE_SECONDS


def _end(doomed: Sequence[Observed], head: Head) -> tuple[tuple[Action, ...], tuple[Action, ...]]:
    """Stop what runs; remove what has ended. What is stopped now is removed by a later plan, when its end is on record."""
    running = [(seen, _stop_policy(seen, head)) for seen in doomed if seen.phase in (Phase.RUNNING, Phase.PAUSED)]
    stops = tuple(Stop(seen, stop.signal, stop.grace_seconds, _why_end(seen, head)) for seen, stop in running)
    removes = tuple(Remove(seen, _why_end(seen, head)) for seen in doomed if seen.phase not in (Phase.RUNNING, Phase.PAUSED))
    return stops, removes


def _stop_policy(seen: Observed, head: Head) -> StopPolicy:
    """An instance is stopped as the revision it was made from says; one of the same make as the newest revision says."""
    if seen.hash != head.revision.instance_hash:
        with suppress(Invalid):
            return decode(seen.record).pkg.stop
    return head.revision.pkg.stop


def _why_end(seen: Observed, head: Head) -> str:
    newest = head.revision
    if newest.removed:
        return f"the app was removed by {newest.submitted_by}"
    if newest.pkg.replicas == 0:
        return f"revision {newest.revision} wants no replica"
    if seen.hash != newest.instance_hash:
        return f"superseded by revision {newest.revision} ({newest.version})"
    if seen.name.replica >= newest.pkg.replicas:
        return f"revision {newest.revision} wants {newest.pkg.replicas} replicas"
    return "another instance already stands for this replica"
