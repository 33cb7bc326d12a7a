"""Pure: the state machine of one deployment, from the recorded revision to its end.

    pending → fetching → starting → verifying → draining → succeeded
                  any of them │                               │ falls over while it is watched
                              ▼                               ▼
                           failed ──────────────────────► rolling-back → rolled-back | rollback-failed

There is one deployment an app; a newer revision supersedes it. Without an older revision that was healthy, the agent goes on
trying after ``failed``, with backoff; what gets well after all has succeeded late. Falling back happens once, to that one
revision, never for scripts: what their older revision did must not be done again. Desired state is not touched by any of this.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from boreas_agent.backoff import given_up
from boreas_agent.checking import last_words
from boreas_agent.health import GOOD, Assessment
from boreas_agent.model import FALLEN_BACK, Deployment, Event, Good, Head, Observed, Phase, Revision, Stage
from boreas_agent.planner import sort_out

CRASHES = 3
"""So many runs that ended one after the other, none of them stable, and a deployment has failed before its deadline."""
UNWELL_SECONDS = 10.0
"""A watched revision that is below the line for so long in a row, or for ``min_healthy_seconds`` where that is longer, has fallen over."""
_FORWARDS = (Stage.PENDING, Stage.FETCHING, Stage.STARTING, Stage.VERIFYING, Stage.DRAINING)


class Seen(Struct, frozen=True):
    """What a pass found of the running revision, as far as its deployment is concerned.

    ``up``: every wanted replica runs or has finished. ``busy``: something of it runs. ``left``: something else still runs.
    ``broken``: why it can't get well by itself, as far as anybody can tell; empty where it may.
    """

    assessment: Assessment
    up: bool
    busy: bool
    left: bool
    broken: str
    image: str
    digest: str


class Step(Struct, frozen=True):
    """The deployment after a pass, and what is to be told of the change."""

    deployment: Deployment
    events: tuple[Event, ...] = ()


def begin(revision: Revision, now: datetime, image: str = "", digest: str = "") -> Deployment:
    """Of a revision that is recorded ``now``; with the bytes that it is to run, where those are known beforehand."""
    return Deployment(revision.revision, revision.version, revision.kind, ((Stage.PENDING, now),), image=image, digest=digest)


def enter(deployment: Deployment | None, stage: Stage, now: datetime) -> Deployment | None:
    """The deployment in ``stage``, unless it has been there; it only goes forwards."""
    if deployment is None or deployment.stage not in _FORWARDS or _FORWARDS.index(stage) <= _FORWARDS.index(deployment.stage):
        return deployment
    return _to(deployment, stage, now)


def supersede(head: Head, by: Revision, now: datetime) -> Deployment | None:
    """How the head's deployment ends because another revision is recorded; None where it had ended."""
    deployment = head.deployment
    if deployment is None or deployment.outcome is not None:
        return None
    if head.proven and head.proven == head.revision.instance_hash:  # a script that runs on and on
        return _to(deployment, Stage.SUCCEEDED, now, "healthy until another revision came")
    before = f"{deployment.reason}; " if deployment.reason else ""
    return _to(deployment, Stage.SUPERSEDED, now, f"{before}superseded by {by.title} before it was healthy")


def gone(head: Head, now: datetime) -> Deployment | None:
    """How the deployment of a removal ends."""
    return _to(head.deployment, Stage.SUCCEEDED, now, "all of it is gone") if head.deployment else None


def successor_good(head: Head, revision: Revision) -> Good | None:
    """What ``revision``, which takes the place of ``head``, can go back to."""
    old = head.revision
    if revision.removed or old.removed:
        return None
    if old.pkg.type == "script":
        return None
    if head.fallback is None and head.proven == old.instance_hash and old.wanted:
        return head.ran
    return head.good


def target(head: Head) -> Good | None:
    """What is fallen back to if the head's deployment fails; None where nothing is."""
    revision, good = head.revision, head.good
    if good is None or not revision.wanted or revision.pkg.type == "script" or not revision.pkg.rollout.auto_rollback:
        return None
    return good if good.revision.spec_hash != revision.spec_hash else None


def look(head: Head, observed: Sequence[Observed], assessment: Assessment, failures: Sequence[str]) -> Seen:
    """What ``observed`` means for the deployment; ``failures``: actions of this pass that will fail again."""
    current, rest = sort_out(head, observed)
    image, digest = next(((seen.image, seen.digest) for _, seen in sorted(current.items()) if seen.image), ("", ""))
    runs = [replica for replica, seen in current.items() if seen.phase is Phase.RUNNING]
    return Seen(
        assessment=assessment,
        up=len({*runs, *assessment.ready}) == head.running.wanted,
        busy=any(seen.up for seen in current.values()),
        left=any(seen.up for seen in rest) or (not head.running.wanted and bool(observed)),
        broken=_broken(head, failures),
        image=image,
        digest=digest,
    )


def _broken(head: Head, failures: Sequence[str]) -> str:
    running = head.running
    for tried in head.attempts.values():
        ended = tried.last_exit
        if ended is None or tried.hash != running.instance_hash:
            continue
        if given_up(tried, running.pkg):
            return last_words(tried)
        if running.pkg.type == "script":
            continue  # it has its attempts
        if tried.exits >= CRASHES:
            return f"crash-looping: {ended}, {tried.exits} times in a row"
        if not ended.known and not ended.lost and not tried.started:
            return str(ended)
    return failures[0] if failures else ""


def advance(head: Head, seen: Seen, elapsed: float, now: datetime) -> Step | None:
    """The next step of the head's deployment, ``elapsed`` seconds of its time after the last one; None where there is none."""
    deployment = head.deployment
    if deployment is None or head.hold is not None:
        return None
    match deployment.stage:
        case Stage.SUCCEEDED:
            return _watch(head, deployment, seen, elapsed, now)
        case Stage.ROLLING_BACK:
            return _roll_back(head, deployment, seen, elapsed, now)
        case Stage.FAILED if seen.assessment.whole and not seen.left and not _still_runs(head, seen):
            return _succeed(head, deployment, f"healthy after all; it had failed: {deployment.reason}", now)
        case stage if stage in _FORWARDS:
            return _deploy(head, deployment, seen, elapsed, now)
        case _:
            return None


def seconds_left(head: Head, elapsed: float = 0.0) -> float | None:
    """After how many seconds of its time the head's deployment may fail though nothing happens; None where it can't.

    ``elapsed``: seconds of it that are not counted in ``spent`` yet.
    """
    deployment = head.deployment
    if deployment is None or head.hold is not None or not head.running.wanted:
        return None
    if deployment.stage is Stage.ROLLING_BACK or deployment.stage in _FORWARDS:
        return max(0.0, head.running.pkg.rollout.progress_deadline_seconds - deployment.spent - elapsed)
    if _watched(head, deployment) and head.health.level < GOOD and target(head) is not None:
        return max(0.0, _patience(head) - (deployment.unwell or 0.0) - elapsed)
    return None


# --- forwards ------------------------------------------------------------------------------------


def _deploy(head: Head, deployment: Deployment, seen: Seen, elapsed: float, now: datetime) -> Step:
    revision, judged = head.revision, seen.assessment
    if _still_runs(head, seen):
        return _step(enter(deployment, Stage.VERIFYING, now), deployment)
    if seen.image:
        deployment = replace(deployment, image=seen.image, digest=seen.digest)
    progress = len(judged.ready) > deployment.ready
    spent = 0.0 if progress else deployment.spent + elapsed
    deployment = replace(deployment, spent=spent, ready=max(len(judged.ready), deployment.ready))
    if not revision.wanted:
        if seen.left or revision.removed:
            return _step(enter(deployment, Stage.DRAINING, now), deployment)
        return _succeed(head, deployment, "stopped, as it should be", now)
    if judged.whole:
        if seen.left:
            return _step(enter(deployment, Stage.DRAINING, now), deployment)
        return _succeed(head, deployment, _well(revision, judged), now)
    if seen.broken:
        return _fail(head, deployment, seen.broken, now)
    deadline = revision.pkg.rollout.progress_deadline_seconds
    if spent >= deadline and not judged.lasting:
        return _fail(head, deployment, f"not healthy within {deadline:g} s: {judged.words}", now)
    return _step(enter(deployment, Stage.VERIFYING, now) if seen.up else deployment, deployment)


def _still_runs(head: Head, seen: Seen) -> bool:
    """Of a script it is the end that counts."""
    return head.revision.pkg.type == "script" and seen.busy


def _step(entered: Deployment | None, deployment: Deployment) -> Step:
    return Step(entered or deployment)


def _succeed(head: Head, deployment: Deployment, why: str, now: datetime) -> Step:
    done = replace(_to(deployment, Stage.SUCCEEDED, now, why), spent=0.0)
    return Step(done, (_event("DeploymentSucceeded", head, f"{head.revision.title} is in place: {why}"),))


def _well(revision: Revision, judged: Assessment) -> str:
    if revision.pkg.type == "script":
        return judged.words
    return f"{'it' if revision.wanted == 1 else 'every replica'} was healthy for {revision.pkg.rollout.min_healthy_seconds:g} s"


def _fail(head: Head, deployment: Deployment, why: str, now: datetime) -> Step:
    failed = _to(deployment, Stage.FAILED, now, why)
    good = target(head)
    if good is not None:
        return _fall_back(head, failed, good, now)
    then = "" if head.revision.pkg.type == "script" else f"; {_why_none(head)}, so it goes on being tried"
    return Step(failed, (_event("DeploymentFailed", head, f"{head.revision.title} failed: {why}{then}"),))


def _why_none(head: Head) -> str:
    if not head.revision.pkg.rollout.auto_rollback:
        return "automatic rollback is off"
    return "there is no older revision that was healthy" if head.good is None else "the last healthy revision asks for the same"


# --- and back ------------------------------------------------------------------------------------


def _fall_back(head: Head, failed: Deployment, good: Good, now: datetime) -> Step:
    back = replace(_to(failed, Stage.ROLLING_BACK, now), spent=0.0, ready=0, unwell=None)
    message = f"{head.revision.title} failed: {failed.reason}; going back to {good.revision.title}"
    return Step(back, (_event("DeploymentFailed", head, message),))


def _watch(head: Head, deployment: Deployment, seen: Seen, elapsed: float, now: datetime) -> Step | None:
    good = target(head)
    if good is None or not _watched(head, deployment):
        return None
    seconds, well = head.revision.pkg.rollout.watch_seconds, seen.assessment.health.level >= GOOD
    unwell = None if well else 0.0 if deployment.unwell is None else deployment.unwell + elapsed
    why = seen.broken or (seen.assessment.words if (unwell or 0.0) >= _patience(head) else "")
    if why:
        why = f"it fell over within {seconds:g} s of its success: {why}"
        return _fall_back(head, replace(deployment, reason=why), good, now)
    over = deployment.spent + elapsed >= seconds
    return Step(replace(deployment, spent=seconds if over else deployment.spent, unwell=unwell))


def _watched(head: Head, deployment: Deployment) -> bool:
    """One that is below the line at the end is watched on until it is either well or back."""
    watched = deployment.spent < head.revision.pkg.rollout.watch_seconds or deployment.unwell is not None
    return deployment.stage is Stage.SUCCEEDED and watched


def _patience(head: Head) -> float:
    return max(UNWELL_SECONDS, head.revision.pkg.rollout.min_healthy_seconds)


def _roll_back(head: Head, deployment: Deployment, seen: Seen, elapsed: float, now: datetime) -> Step:
    older, judged = head.running, seen.assessment
    progress = len(judged.ready) > deployment.ready
    spent = 0.0 if progress else deployment.spent + elapsed
    deployment = replace(deployment, spent=spent, ready=max(len(judged.ready), deployment.ready))
    if judged.whole and not seen.left:
        message = f"{older.title} is back in place of {head.revision.title}, which is blocked: {deployment.reason}"
        return Step(_to(deployment, Stage.ROLLED_BACK, now), (_event("RolledBack", head, message),))
    deadline = older.pkg.rollout.progress_deadline_seconds
    late = spent >= deadline and not judged.lasting
    why = seen.broken or (f"not healthy within {deadline:g} s: {judged.words}" if late else "")
    if not why:
        return Step(deployment)
    reason = f"{deployment.reason}; {older.title} did not come back: {why}"
    message = f"{older.title} did not come back in place of {head.revision.title}: {why}; it goes on being tried"
    return Step(_to(deployment, Stage.ROLLBACK_FAILED, now, reason), (_event("RollbackFailed", head, message),))


# --- small things --------------------------------------------------------------------------------


def blocked(head: Head) -> str:
    """Why the head's revision is not tried any more, and what to do about it; empty where it is not so."""
    if head.fallback is None or head.deployment is None:
        return ""
    return (
        f"{head.revision.title} failed and is blocked: {head.deployment.reason}; "
        f'to try it again, apply it with "force": true, restart the app, or apply another spec'
    )


def same_way(before: Deployment | None, after: Deployment | None, seconds: float) -> bool:
    """The two differ by nothing but less than ``seconds`` of time, which a later commit may record as well."""
    if before is None or after is None:
        return before is after
    over = after.stage is Stage.SUCCEEDED and before.spent != after.spent
    if over or abs(before.spent - after.spent) >= seconds:
        return False
    drifted = before.unwell is not None and after.unwell is not None
    return replace(after, spent=before.spent, unwell=before.unwell if drifted else after.unwell) == before


def turns(before: Deployment | None, after: Deployment | None) -> bool:
    """Between the two another revision has become the running one."""
    return (before is not None and before.stage in FALLEN_BACK) != (after is not None and after.stage in FALLEN_BACK)


def _to(deployment: Deployment, stage: Stage, now: datetime, reason: str = "") -> Deployment:
    return replace(deployment, stages=(*deployment.stages, (stage, now)), reason=reason or deployment.reason)


def _event(kind: str, head: Head, message: str) -> Event:
    return Event(kind, message, head.app, head.revision.revision)
