"""What every request does to the recorded state, as pure functions: what is known of the app goes in, a Change comes out.

They run one after the other, each seeing what the one before it decided, so two requests for
one app can't both take the same revision number. They touch nothing; a Change that is never committed never was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Generic, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from boreas_agent import dependencies, rollout, spec
from boreas_agent.clock import timestamp
from boreas_agent.errors import Conflict, FieldError, Invalid, NotFound
from boreas_agent.health import GOOD, SERVES
from boreas_agent.model import Drained, Event, Good, Head, Health, Hold, PulledImage, Revision, RevisionKind, Status
from boreas_agent.spec import DockerPkg, Pkg, Submission
from boreas_agent.store import codec
from boreas_agent.store.codec import Rows
from boreas_agent.store.values import Outcome, Receipt

T = TypeVar("T")
Known = Head | int
"""What is recorded of an app: its head, or, where it is gone or was never there, its newest revision number (or 0)."""

_NO_ATTEMPTS = codec.frozen({})


class Change(Struct, Generic[T], frozen=True):
    """An answer, and what must be durable before it may be given. ``state`` None leaves the app as it is.

    ``asks``: a revision that somebody asks for, which the other apps must allow (:func:`check_order`).
    """

    answer: T
    state: Known | None = None
    rows: Rows = ()
    asks: Revision | None = None


def check_order(asked: Revision, head: Callable[[str], Head | None]) -> None:
    """Refuse a revision that would wait for itself, by what is desired of the other apps; raises Invalid, for a rollback Conflict."""
    if not asked.pkg.depends_on:
        return

    def after(app: str) -> Iterable[str]:
        other = head(app)
        return () if other is None or other.revision.removed else (need.app for need in other.revision.pkg.depends_on)

    path = dependencies.path_back(asked.app, [need.app for need in asked.pkg.depends_on], after)
    if not path:
        return
    round_about = dependencies.arrows(path)
    if asked.kind == "rollback":
        raise Conflict(
            f"cannot roll back {asked.app} to that: it would wait for itself: {round_about}; change what the others depend on first"
        )
    raise Invalid((FieldError("pkg.depends_on", f"{asked.app} would wait for itself: {round_about}"),))


# --- new revisions -------------------------------------------------------------------------------


def apply(submission: Submission, by: str, known: Known, now: datetime) -> Change[Receipt]:
    """Record a submission, unless it is what the head already asks for."""
    head = known if isinstance(known, Head) and not known.revision.removed else None
    if head and head.revision.spec_hash == submission.spec_hash and not submission.force:
        return _unchanged(head)
    number = newest(known) + 1
    # What runs now is kept where it is the same; that may be an older revision than the desired one.
    generation = head.running.generation if head and not submission.force else number
    wanted = _Wanted(submission.version, submission.pkg, submission.spec_hash, generation)
    return _record_new(_revision(submission.app, number, "apply", wanted, by, now), "Applied", known, now)


def rollback(ran: Good, by: str, known: Known, now: datetime) -> Change[Receipt]:
    """Ask again for what an older revision asked for, and for the bytes that it ``ran``. What runs of it is kept, if it does."""
    to = ran.revision
    head = _present(to.app, known)
    if head.revision.removed:
        raise Conflict(f"cannot roll back {to.app}: it is being removed")
    if to.removed:
        raise Conflict(f"cannot roll back {to.app} to revision {to.revision}: that one asked for its removal")
    if head.revision.spec_hash == to.spec_hash:
        return _unchanged(head)
    wanted = _Wanted(to.version, to.pkg, to.spec_hash, to.generation)
    revision = _revision(to.app, newest(known) + 1, "rollback", wanted, by, now)
    return _record_new(revision, "RollbackRequested", head, now, replace(ran, revision=revision))


class _Wanted(Struct, frozen=True):
    """What a new revision asks for."""

    version: str
    pkg: Pkg
    spec_hash: str
    generation: int


def _revision(app: str, number: int, kind: RevisionKind, wanted: _Wanted, by: str, now: datetime) -> Revision:  # noqa: PLR0913, PLR0917  all that is new in it
    return Revision(
        app=app,
        revision=number,
        version=wanted.version,
        kind=kind,
        generation=wanted.generation,
        pkg=wanted.pkg,
        spec_hash=wanted.spec_hash,
        instance_hash=spec.instance_hash(wanted.version, wanted.pkg, wanted.generation, number),
        submitted_at=now,
        submitted_by=by,
    )


def _record_new(revision: Revision, event: str, known: Known, now: datetime, ran: Good | None = None) -> Change[Receipt]:
    health = _pending(known, f"revision {revision.revision} recorded")
    return _recorded(_succeed(known, revision, health, now, ran), known, _event(event, revision), now)


def _unchanged(head: Head) -> Change[Receipt]:
    asks = f"unchanged: revision {head.revision.revision} already asks for this"
    blocked = rollout.blocked(head)
    return Change(_receipt(head, changed=False, message=f"{asks}; {blocked}" if blocked else asks))


def restart(app: str, by: str, known: Known, now: datetime) -> Change[Receipt]:
    """The same again, with every instance replaced."""
    head = _present(app, known)
    if head.revision.removed:
        raise Conflict(f"cannot restart {app}: it is being removed")
    return _record_new(_again(head, "restart", by, now), "Restarted", head, now, _restarted(head))


def _restarted(head: Head) -> Good | None:
    """What a restart runs: the bytes that the revision ran, unless its spec wants them looked for at every deployment."""
    deployment, pkg = head.deployment, head.revision.pkg
    if deployment is None or (isinstance(pkg, DockerPkg) and pkg.pull_policy == "always"):
        return None
    return Good(head.revision, deployment.image, deployment.digest)


def remove(app: str, by: str, known: Known, now: datetime) -> Change[Receipt]:
    """Desired state: absent."""
    head = _present(app, known)
    if head.revision.removed:
        return Change(_receipt(head, changed=False, message=f"unchanged: {app} is already being removed"))
    revision = _again(head, "remove", by, now)
    health = Health(0, Status.REMOVING, f"revision {revision.revision} recorded: to be removed")
    return _recorded(_succeed(head, revision, health, now), head, _event("RemoveRequested", revision), now)


def adopt(revision: Revision, known: Known, now: datetime) -> Change[bool]:
    """An instance carries a revision that the database does not know: what runs is right, the database lost it."""
    if revision.revision <= newest(known):
        return Change(False)
    revision = replace(revision, submitted_at=milliseconds(revision.submitted_at))
    message = (
        f"revision {revision.revision} ({revision.version}) was found running and is not in the database: it is the desired state again"
    )
    successor = replace(_succeed(known, revision, _pending(known, f"revision {revision.revision} adopted"), now), deployment=None)
    change = _recorded(successor, known, Event("Adopted", message, revision.app, revision.revision), now)
    return Change(True, change.state, change.rows)


def _again(head: Head, kind: RevisionKind, by: str, now: datetime) -> Revision:
    """The head's spec as a new revision; a restart begins a new generation, so every instance is made anew."""
    old = head.revision
    number = old.revision + 1
    generation = number if kind == "restart" else old.generation
    return replace(
        old,
        revision=number,
        kind=kind,
        generation=generation,
        instance_hash=spec.instance_hash(old.version, old.pkg, generation, number) if kind == "restart" else old.instance_hash,
        submitted_at=now,
        submitted_by=by,
    )


def _succeed(known: Known, revision: Revision, health: Health, now: datetime, ran: Good | None = None) -> Head:
    """The head that ``revision`` makes; what was learnt of instances stays true while they stay the same.

    ``ran``: the bytes that it is to run, where it isn't to find out anew.
    """
    if not isinstance(known, Head):
        return Head(revision, health, now, deployment=rollout.begin(revision, now))
    same = known.running.instance_hash == revision.instance_hash
    kept = known.ran if same and known.ran.image else ran
    deployment = rollout.begin(revision, now, kept.image, kept.digest) if kept else rollout.begin(revision, now)
    return replace(
        known,
        revision=revision,
        health=health,
        updated=_updated(known, health, now),
        proven="",  # a new revision has to prove itself anew
        attempts=known.attempts if same else _NO_ATTEMPTS,
        deployment=deployment,
        good=rollout.successor_good(known, revision),
        homes=known.homes | _unrecorded(known, revision),
    )


def _unrecorded(known: Head, revision: Revision) -> frozenset[str]:
    """Kinds of which something may run though no record says so, where ``revision`` alone would not have them asked.

    A process is started before its start is on record; of a container it is on record first that there may be one.
    """
    kinds = {one.pkg.type for one in (known.revision, known.running)} - {"docker"}
    return frozenset(kinds if revision.removed else kinds - {revision.pkg.type})


def _pending(known: Known, msg: str) -> Health:
    """On its way; what serves meanwhile is said, for the level speaks of the new revision from now on."""
    if not isinstance(known, Head) or known.revision.removed:
        return Health(1, Status.PENDING, msg)
    if known.health.level < SERVES or known.health.status is Status.COMPLETED:
        return Health(1, Status.PENDING, msg)
    old = f"revision {known.running.revision}" if known.health.level >= GOOD or known.fallback else "an older revision"
    return Health(SERVES, Status.PENDING, f"{msg}; {old} still serves")


def _recorded(head: Head, known: Known, event: Event, now: datetime) -> Change[Receipt]:
    """The whole of a new revision: its row, what it says of the one before it, and how the app is from now on."""
    number = head.revision.revision
    rows = [("revisions", codec.revision_row(head.revision)), ("events", codec.event_row(event, now))]
    if isinstance(known, Head) and _unfinished(known):
        message = f"revision {known.revision.revision} was superseded by revision {number} before it was healthy"
        rows.append(("events", codec.event_row(Event("Superseded", message, head.app, known.revision.revision), now)))
    if isinstance(known, Head) and (ended := rollout.supersede(known, head.revision, now)):
        rows += codec.deployment_rows(head.app, ended, None)
    rows.append(("health", codec.health_row(head.revision, head.health, now)))
    message = f"revision {number} recorded"
    if head.hold:
        message += f"; {head.app} is held by {head.hold.by}, so nothing happens before it is released"
    asks = head.revision if head.revision.kind in {"apply", "rollback"} else None
    return Change(_receipt(head, changed=True, message=message), head, rows, asks)


def _unfinished(head: Head) -> bool:
    """The revision has not become healthy; one that was healthy once, or is stopped as it should be, has."""
    if head.revision.removed or head.health.level >= GOOD or head.health.status is Status.STOPPED:
        return False
    return head.health.status in {Status.PENDING, Status.DEPLOYING} or head.proven != head.revision.instance_hash


def _updated(known: Head, health: Health, now: datetime) -> datetime:
    """When status or level last changed; words alone do not count."""
    same = (known.health.status, known.health.level) == (health.status, health.level)
    return known.updated if same else now


# --- holds ---------------------------------------------------------------------------------------


def hold(app: str, wanted: Hold, known: Known, now: datetime) -> Change[Receipt]:
    """Leave the app as it is; a second hold takes the place of the first."""
    head = _present(app, known)
    if wanted == head.hold:
        return Change(_receipt(head, changed=False, message=f"unchanged: {app} is already held by {wanted.by}"))
    until = f"until {timestamp(wanted.until)}" if wanted.until else "until released"
    because = f": {wanted.reason}" if wanted.reason else ""
    message = f"{app} is held by {wanted.by} {until}{because}"
    return _noted(replace(head, hold=wanted), Event("Held", message, app, head.revision.revision), now)


def release(app: str, by: str, known: Known, now: datetime) -> Change[Receipt]:
    """End the hold."""
    head = _present(app, known)
    if head.hold is None:
        return Change(_receipt(head, changed=False, message=f"unchanged: {app} is not held"))
    message = f"{app} is released by {by}; it was held by {head.hold.by}"
    return _noted(replace(head, hold=None), Event("Released", message, app, head.revision.revision), now)


def expire(app: str, due: Hold, known: Known, now: datetime) -> Change[bool]:
    """End the hold whose time is over, if it is still that one."""
    if not isinstance(known, Head) or known.hold != due:
        return Change(False)
    message = f"{app} is released: the hold by {due.by} was for {due.seconds:g} seconds"
    change = _noted(replace(known, hold=None), Event("Released", message, app, known.revision.revision), now)
    return Change(True, change.state, change.rows)


def rehold(old: Hold, new: Hold, known: Known, _now: datetime) -> Change[None]:
    """The same hold on this boot's clock."""
    return Change(None, replace(known, hold=new)) if isinstance(known, Head) and known.hold == old else Change(None)


def _noted(head: Head, event: Event, now: datetime) -> Change[Receipt]:
    return Change(_receipt(head, changed=True, message=event.message), head, (("events", codec.event_row(event, now)),))


# --- the node ------------------------------------------------------------------------------------


def drain(wanted: Drained, _known: Known, now: datetime) -> Change[Drained]:
    """Run nothing from now on."""
    because = f": {wanted.reason}" if wanted.reason else ""
    event = Event("Drained", f"the node is drained by {wanted.by}{because}")
    return Change(wanted, None, (("node", codec.drained_row(wanted)), ("events", codec.event_row(event, now))))


def undrain(by: str, was: Drained, _known: Known, now: datetime) -> Change[None]:
    """Run again what the apps ask for."""
    event = Event("Undrained", f"the drain is ended by {by}; it was drained by {was.by} since {timestamp(was.at)}")
    return Change(None, None, (("node", codec.drained_row(None)), ("events", codec.event_row(event, now))))


# --- what was found and done ---------------------------------------------------------------------


def record(outcome: Outcome, known: Known, now: datetime) -> Change[None]:
    """Fact and history of one pass. What it says of a revision that is no longer the head is dropped, what happened is not."""
    happened: Rows = (
        *(("exits", codec.exit_row(name, ended)) for name, ended in outcome.exits),
        *(("runs", codec.run_row(name, run)) for name, run in outcome.runs),
        *(("events", codec.event_row(event, now)) for event in outcome.events),
    )
    if not isinstance(known, Head):
        return Change(None, None, happened)
    if known.revision.revision != outcome.revision:
        head = replace(known, homes=known.homes | outcome.homes, hooked={**known.hooked, **(outcome.hooked or {})})
        return Change(None, None if head == known else head, happened)
    if outcome.gone:
        if not known.revision.removed:
            raise Conflict(f"cannot forget {outcome.app}: its revision {outcome.revision} does not ask for its removal")
        ended = rollout.gone(known, now)
        return Change(None, known.revision.revision, (*happened, *(codec.deployment_rows(known.app, ended, None) if ended else ())))
    head = replace(
        known,
        health=outcome.health,
        updated=_updated(known, outcome.health, now),
        attempts=codec.frozen(outcome.attempts),
        proven=outcome.proven,
        unknown_since=outcome.unknown_since,
        homes=outcome.homes,
        deployment=outcome.deployment or known.deployment,
        hooked=known.hooked if outcome.hooked is None else outcome.hooked,
    )
    if head.deployment and head.deployment.outcome and head.deployment.stage is not (known.deployment and known.deployment.stage):
        happened = (*happened, *codec.deployment_rows(head.app, head.deployment, head.good))
    if outcome.health != known.health:
        happened = (*happened, ("health", codec.health_row(head.revision, outcome.health, now)))
    return Change(None, None if head == known else head, happened)


def record_events(events: Sequence[Event], _known: Known, now: datetime) -> Change[None]:
    """Events alone."""
    return Change(None, None, tuple(("events", codec.event_row(event, now)) for event in events))


def record_images(images: Sequence[PulledImage], events: Sequence[Event], _known: Known, now: datetime) -> Change[None]:
    """How images are that the agent has pulled, and what was done with them."""
    rows = [("images", codec.image_row(image)) for image in images]
    return Change(None, None, (*rows, *(("events", codec.event_row(event, now)) for event in events)))


# --- small things --------------------------------------------------------------------------------


def newest(known: Known) -> int:
    """The newest revision number ever recorded, 0 where there is none."""
    return known.revision.revision if isinstance(known, Head) else known


def milliseconds(at: datetime) -> datetime:
    """``at`` as the database keeps it, so that what is in memory equals what is read back."""
    return at.replace(microsecond=at.microsecond // 1000 * 1000)


def _present(app: str, known: Known) -> Head:
    if isinstance(known, Head):
        return known
    raise NotFound(f"there is no app {app}")


def _event(kind: str, revision: Revision) -> Event:
    done = {"apply": "recorded", "restart": "restart requested", "remove": "removal requested", "rollback": "rollback requested"}
    message = f"{done[revision.kind]} by {revision.submitted_by}: version {revision.version}, revision {revision.revision}"
    return Event(kind, message, revision.app, revision.revision)


def _receipt(head: Head, *, changed: bool, message: str) -> Receipt:
    return Receipt(head.app, head.revision.version, head.revision.revision, changed, message)
