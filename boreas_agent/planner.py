"""Pure: from what is wanted and what is seen to what to do, and when to look again.

The plan is a value; whoever carries it out decides nothing. For a new revision everything is prepared first, then its
``pre_start`` hook has to succeed, then as many old instances are stopped as may be missing, then as many new ones are started as there
is room for; the next stride follows once these are ready. So the old ones serve until the new ones can. While preparing is in backoff
the old ones are left alone. Where nothing differs but what files with ``on_change: signal`` hold, the old ones become the new ones, in
the same strides.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from itertools import takewhile

from msgspec import Struct

from boreas_agent import checking, hooks
from boreas_agent.backoff import finished, given_up
from boreas_agent.clock import timestamp
from boreas_agent.errors import Invalid
from boreas_agent.model import (
    Action,
    Attempts,
    Check,
    Head,
    Instance,
    Observed,
    Phase,
    Plan,
    PostStart,
    Prepare,
    PreStart,
    Reload,
    Remove,
    Rename,
    Resume,
    Revision,
    Start,
    Stop,
)
from boreas_agent.records import carried, decode, instances
from boreas_agent.spec import Pkg, Rollout, ScriptPkg

SETTLE_SECONDS = 1.0
"""An instance younger than this is not replaced yet: of revisions that follow each other within a second
only the last is started, instead of each in its turn. One that started in the future did so before a reboot."""


def plan(head: Head, observed: Sequence[Observed], now: float, ready: Collection[int] = ()) -> Plan:
    """The steps that lead from ``observed`` to the head's running revision; ``now`` in boot seconds.

    ``head.attempts`` must already count every exit in ``observed`` and be rebased to this boot. ``ready``: the replicas of that
    revision that are judged to serve, so that old instances need not any more.
    """
    if head.hold is not None:
        return Plan()
    running = head.running
    replicas = running.wanted
    current, rest = sort_out(head, observed)
    rollout = _rollout(head)
    spared = [seen for seen in rest if rollout.surge and _is_beyond(seen, running) and seen.up]
    surplus = [seen for seen in rest if (not replicas or seen.hash == running.instance_hash) and seen not in spared]
    superseded = [seen for seen in rest if replicas and seen.hash != running.instance_hash]
    needs = [_need(head, replica, current.get(replica), now) for replica in range(replicas)]
    turning = _turning(head, superseded, current)
    unhealthy = tuple(need.stop for need in needs if need.stop is not None)

    gates = [need.wake_at for need in needs if need.wake_at is not None]
    unsettled = [at for seen in superseded if (at := _settles_at(seen)) is not None and now < at <= now + SETTLE_SECONDS]
    if unsettled:
        stops, removes = _end(surplus, head)
        return Plan(tuple(step for step in ((*stops, *unhealthy), removes) if step), min([*unsettled, *gates]))

    superseded = [seen for seen in superseded if turning.get(seen.name.replica) is not seen]
    reloads = _reloads(head, turning, needs, replicas - len(turning) - len({*ready} & current.keys()))
    needs = [_Need() if replica in turning else need for replica, need in enumerate(needs)]
    alive = [*(seen for seen in superseded if seen.up), *spared]
    move = _move(head, needs, current, alive, ready, turning=len(turning))
    due = {replica: cause for replica, need in enumerate(needs) if (cause := need.start) and (replica in current or replica in move.places)}
    wants = instances(running, due, *_bytes(head, current)) if due else {}
    first = [(wants[replica], due[replica]) for replica in due if replica not in current][:1]
    prepare = tuple(Prepare(want, cause) for want, cause in first or [(one.want, one.cause) for one in reloads[:1]])
    hook = hooks.pre_start(head)
    pre_start = tuple(PreStart(want, hook, cause) for want, cause in first if hook is not None)
    repairs = tuple(action for need in needs for action in need.repairs)
    starts = tuple(_start(want, current.get(replica), needs[replica]) for replica, want in wants.items())
    taken = {want.name for want in wants.values()}  # by a start, which makes room for itself of what has ended
    ended = [seen for seen in superseded if not seen.up and seen.name not in taken] if due or current or not gates else []
    namesakes = [seen for seen in alive if seen.name in taken and seen not in move.leave]
    stops, removes = _end([*surplus, *move.leave, *namesakes, *ended], head)
    steps = (prepare, pre_start, (*stops, *unhealthy), reloads, starts, repairs, removes)
    return Plan(tuple(step for step in steps if step), min(gates, default=None))


def _bytes(head: Head, current: Mapping[int, Observed]) -> tuple[str, str]:
    """What the instances are to run: what the first of them ran, on record or seen. A tag may have moved since."""
    known = head.ran
    if known.image:
        return known.image, known.digest
    return next(((seen.image, seen.digest) for _, seen in sorted(current.items()) if seen.image), ("", ""))


def _start(want: Instance, seen: Observed | None, need: _Need) -> Start | Check:
    """What is there is started again as what it is, though an older revision has made it: its exits are those that count."""
    cause = need.start or ""
    if need.asks and isinstance(want.pkg, ScriptPkg):
        return Check(want, checking.seconds(want.pkg), cause)
    if seen is None:
        return Start(want, 0, cause)
    if seen.name != want.name:
        with suppress(Invalid):
            want = carried(seen.record, seen.name, want.image, want.digest)
    return Start(want, seen.run, cause)


def _turning(head: Head, superseded: Sequence[Observed], current: Mapping[int, Observed]) -> dict[int, Observed]:
    """The old instances that need not be replaced, by replica: told to read their files anew, they are what is wanted."""
    running = head.running
    found: dict[int, Observed] = {}
    if not any(file.reloads for file in running.pkg.files):
        return found
    lasting, made = running.lasting_hash, {record: _made(record) for record in {seen.record for seen in superseded}}
    same = {record: revision for record, revision in made.items() if revision is not None and revision.lasting_hash == lasting}
    for seen in superseded:
        replica, revision = seen.name.replica, same.get(seen.record)
        free = replica < running.wanted and replica not in current and replica not in found
        if revision is not None and free and seen.phase is Phase.RUNNING and hooks.complete(head, seen, revision):
            found[replica] = seen
    return found


def _made(record: str) -> Revision | None:
    with suppress(Invalid):
        return decode(record)
    return None


def _reloads(head: Head, turning: Mapping[int, Observed], needs: Sequence[_Need], unready: int) -> tuple[Reload, ...]:
    """As many at once as may be missing, one at least, ``unready`` ones among them: those that were told must be known to bear it."""
    running = head.running
    able = [replica for replica in sorted(turning) if needs[replica].start is not None]
    some = able[: max(0, max(1, running.pkg.rollout.unavailable) - unready)]
    wants = instances(running, some, *_bytes(head, turning)) if some else {}
    return tuple(_reload(turning[replica], want, running, needs[replica].start or "") for replica, want in wants.items())


def _reload(seen: Observed, want: Instance, running: Revision, cause: str) -> Reload:
    """The signals are those of files that are others now; a file of the node may be, and where nobody knows what was read, all may."""
    before = {file.path: file for file in decode(seen.record).pkg.files} if seen.hash else {}
    changed = [file for file in running.pkg.files if file.reloads and (file.content_from or before.get(file.path) != file)]
    return Reload(seen, want, tuple(sorted({file.signal for file in changed})), cause)


class _Move(Struct, frozen=True):
    """One stride of a rollout: the new replicas that may come into being now, and the old instances that leave for them."""

    places: Collection[int]
    leave: Sequence[Observed] = ()


def _move(  # noqa: PLR0913  # what is wanted, and all that is there
    head: Head,
    needs: Sequence[_Need],
    current: Mapping[int, Observed],
    alive: Sequence[Observed],
    ready: Collection[int],
    *,
    turning: int,
) -> _Move:
    """How far the rollout may go now. Old instances are spared while they are needed, and while nothing can take their place.
    Besides them there are ``turning`` ones that serve and will be new ones without being replaced.

    Under start-first none leaves before a new one is ready, though there may be more than ``max_surge`` beyond those wanted: which of
    the old ones serve nobody knows. Those of other revisions than the last good one may never have served, so they stay for the last.
    """
    rollout, good = _rollout(head), head.good.revision.instance_hash if head.good else ""
    absent = [replica for replica, need in enumerate(needs) if replica not in current and (need.start or need.wake_at is not None)]
    if not alive:
        return _Move(absent)
    wanted, surge, unavailable = len(needs), rollout.surge, rollout.unavailable
    taken = {seen.name.replica for seen in alive}
    absent.sort(key=lambda replica: (replica in taken, replica))  # where nobody is yet come the first
    able = list(takewhile(lambda replica: needs[replica].start is not None, absent))
    makes = {seen.hash for seen in alive}
    if surge and (not ready or len(makes) > 1 or (good and good not in makes)):
        return _Move(able[: max(0, surge - (len(current) - len(ready)))], alive if len(ready) >= wanted - unavailable else ())
    spare = max(0, len(alive) + turning + len(ready) - (wanted - unavailable))
    room = wanted + surge - len(alive) - turning - len(current)
    leaving = min(spare, max(0, len(able) - room)) if able else 0 if absent else spare
    places = able[: max(0, room + leaving)]
    replaced = ready if surge else places
    first = sorted(alive, key=lambda seen: (seen.name.replica not in replaced, seen.name.replica))
    return _Move(places, first[:leaving])


def _rollout(head: Head) -> Rollout:
    """By which rules the running revision comes into its place: its own, but where what failed was of the same make, and start-first.

    Then nothing but the number of replicas is taken back, and what serves is spared as it was asked for last.
    """
    asked, running = head.revision, head.running
    return asked.pkg.rollout if asked.pkg.rollout.surge and asked.instance_hash == running.instance_hash else running.pkg.rollout


def _is_beyond(seen: Observed, running: Revision) -> bool:
    """It is of the running revision's make, and more than that one wants: while those it wants come up, it serves as well as an old one."""
    return seen.hash == running.instance_hash and 0 < running.wanted <= seen.name.replica


def sort_out(head: Head, observed: Sequence[Observed]) -> tuple[dict[int, Observed], list[Observed]]:
    """The instance that stands for each wanted replica, and all the others.

    Of two for one replica a running one is kept, then a rightly named one, then the one seen first.
    """
    running = head.running
    current: dict[int, Observed] = {}
    rest: list[Observed] = []
    alive = {Phase.RUNNING: 0, Phase.PAUSED: 1}
    for seen in sorted(observed, key=lambda seen: (alive.get(seen.phase, 2), seen.misnamed)):
        replica = seen.name.replica
        fits = seen.hash == running.instance_hash and replica < running.wanted and replica not in current
        if fits:
            current[replica] = seen
        else:
            rest.append(seen)
    return current, rest


class _Need(Struct, frozen=True):
    """What one replica needs: repairs; to be stopped, so as to be started again; a start that is due, by its cause; or when one will be.

    ``asks``: before it is started, its check is to be asked whether that need be.
    """

    repairs: tuple[Action, ...] = ()
    stop: Stop | None = None
    start: str | None = None
    wake_at: float | None = None
    asks: bool = False


def _need(head: Head, replica: int, seen: Observed | None, now: float) -> _Need:
    running = head.running
    pkg, tried = running.pkg, head.attempts.get(replica) or Attempts(replica, running.instance_hash)
    repairs: tuple[Action, ...] = ()
    if seen is not None and seen.misnamed:
        repairs += (Rename(seen, "it was renamed"),)
    if seen is not None and seen.phase is Phase.PAUSED:
        repairs += (Resume(seen, "it was paused"),)
    if seen is not None and seen.up:
        found, hook = tried.findings(seen), hooks.post_start(head, seen)
        doomed = hooks.failed(head, seen) if hook is not None else found.doomed if found is not None else ""
        if doomed and seen.phase is Phase.RUNNING:
            return _Need(stop=_stop(seen, pkg, doomed))
        limit = pkg.timeout_seconds if isinstance(pkg, ScriptPkg) else None
        if limit is not None and tried.overdue == seen.run_key:
            return _Need(stop=_stop(seen, pkg, f"timed out after {limit:g} s"))
        repairs = repairs if hook is None else (*repairs, PostStart(seen, hook, "it was started"))
        return _Need(repairs, wake_at=seen.started + limit if limit is not None and seen.started is not None else None)
    if isinstance(pkg, ScriptPkg) and pkg.check is not None:
        then = checking.following(tried, pkg, now)
        return _Need(repairs, start=then.cause or None, wake_at=then.wake_at, asks=then.ask)
    if isinstance(pkg, ScriptPkg) and pkg.schedule is not None and (tried.turn is None or not tried.turn.wanted):
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
    if tried.last_exit is None and tried.turn is not None and tried.turn.at is not None:
        return f"scheduled for {timestamp(tried.turn.at)}"
    if tried.last_exit is not None:
        return f"it {tried.last_exit}" if tried.last_exit.signal is None and tried.last_exit.known else f"it ended: {tried.last_exit}"
    if head.fallback is not None:
        return f"{head.running.title} is restored, for {head.revision.title} failed"
    return f"{head.revision.title} wants it"


def _settles_at(seen: Observed) -> float | None:
    if seen.phase not in (Phase.RUNNING, Phase.EXITED) or seen.started is None:
        return None
    return seen.started + SETTLE_SECONDS


def _end(doomed: Sequence[Observed], head: Head) -> tuple[tuple[Action, ...], tuple[Action, ...]]:
    """Stop what runs; remove what has ended. What is stopped now is removed by a later plan, when its end is on record."""
    running = [seen for seen in doomed if seen.up]
    stops = tuple(_stop(seen, _made_by(seen, head), _why_end(seen, head)) for seen in running)
    removes = tuple(Remove(seen, _why_end(seen, head)) for seen in doomed if not seen.up)
    return stops, removes


def _stop(seen: Observed, pkg: Pkg, cause: str) -> Stop:
    """A paused instance could not hear what its hook has to say."""
    hook = pkg.hooks.pre_stop if seen.phase is Phase.RUNNING else None
    return Stop(seen, pkg.stop.signal, pkg.stop.grace_seconds, cause, hook)


def _made_by(seen: Observed, head: Head) -> Pkg:
    """An instance is stopped as the revision it was made from says; one of the same make as the running revision, as that one says."""
    running = head.running
    if seen.hash != running.instance_hash:
        with suppress(Invalid):
            return decode(seen.record).pkg
    return running.pkg


def _why_end(seen: Observed, head: Head) -> str:
    running = head.running
    if running.removed:
        return f"the app was removed by {running.submitted_by}"
    if running.pkg.replicas == 0:
        return f"revision {running.revision} wants no replica"
    if seen.hash != running.instance_hash:
        return f"{head.revision.title} failed" if head.fallback else f"superseded by {running.title}"
    if seen.name.replica >= running.pkg.replicas:
        return f"revision {running.revision} wants {running.pkg.replicas} replicas"
    return "another instance already stands for this replica"
