"""Pure: how well an app is, as a number, a word and a reason (contract, section 4).

The level always speaks of the desired revision: where an older one runs in its place, it is below the line however well that one
is. 80 is the line above which it serves. A revision that was never wholly healthy must run, or where it has probes be ready, for
``min_healthy_seconds`` first; a proven one is healthy as soon as it runs, or is ready, again.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto

from msgspec import Struct
from msgspec.structs import replace

from boreas_agent import hooks, schedule
from boreas_agent.backoff import finished, given_up
from boreas_agent.checking import final_words, last_words
from boreas_agent.clock import timestamp
from boreas_agent.model import Attempts, Head, Health, Observed, Phase, Probed, Stage, Status, Turn, Waiting
from boreas_agent.planner import sort_out
from boreas_agent.spec import Pkg, max_attempts

CRASH_LOOP = 2
"""From this many consecutive failures on an app is crash-looping until it has run for min_healthy_seconds."""
UNKNOWN_STEPS = ((0.0, 99), (30.0, 79), (300.0, 50))
"""While a driver cannot answer: after so many seconds the level is at most so high."""


SERVES = 50
"""From this level on something answers the app's users."""
GOOD = 80
"""From this level on the desired revision serves as it should."""
RESTORED = 70
"""What the level is at most while an older revision serves because the desired one failed."""


class Assessment(Struct, frozen=True):
    """The health, whether the instance hash is proven by now, and when time alone may change either (boot seconds).

    Of the running revision: ``ready`` are the replicas that serve; ``whole`` says that all do, each for long enough by its own running
    time, ``lasting`` that none lacks anything but time; ``words`` is what there is to say of it alone.
    """

    health: Health
    proven: str
    wake_at: float | None = None
    ready: frozenset[int] = frozenset()
    whole: bool = False
    lasting: bool = False
    words: str = ""


RESTARTED, FAILING = 90, 85
"""Levels of what serves with a blemish: an instance was restarted not long ago; a probe has failed lately."""


LONG_SECONDS = 5.0
"""A scheduled run that takes longer is worth a word in the status."""


class _State(Enum):
    READY = auto()
    DONE = auto()
    SETTLING = auto()  # runs, and is ready where it has probes, but not for long enough
    UNREADY = auto()  # started, and its readiness probe has not passed yet
    UNSTARTED = auto()  # runs, and its startup probe has not passed yet
    STARTING = auto()
    WAITING = auto()
    LOST = auto()  # was ready once, and is not any more
    LOOPING = auto()
    FAILED = auto()


_ALONE = {
    _State.SETTLING: 30,
    _State.UNREADY: 25,
    _State.UNSTARTED: 20,
    _State.STARTING: 10,
    _State.WAITING: 5,
    _State.LOST: 0,
    _State.LOOPING: 0,
    _State.FAILED: 0,
}
"""The level where nothing serves, by the worst of the replicas."""


class _Replica(Struct, frozen=True):
    state: _State
    msg: str
    wake_at: float | None = None
    seasoned: bool = False  # ready by its own running time, not because an earlier one was
    level: int = 100  # of one that serves

    @property
    def good(self) -> bool:
        return self.state in (_State.READY, _State.DONE)

    @property
    def lasting(self) -> bool:
        """It only has to go on as it does."""
        return self.good or self.state is _State.SETTLING


def assess(head: Head, observed: Sequence[Observed], now: float, waiting: Waiting | None = None) -> Assessment:
    """Judge what was seen; ``now`` in boot seconds. ``head.attempts`` must count every exit in ``observed``.

    What is ``waiting`` for other apps is on its way, whatever became of it before.
    """
    if head.fallback is not None:
        return _fallen_back(head, observed, now, waiting)
    revision = head.revision
    if revision.removed:
        return Assessment(Health(0, Status.REMOVING, f"removing: {_count(len(observed), 'instance')} left"), "")
    if revision.pkg.replicas == 0:
        health = Health(0, Status.DEPLOYING, "stopping") if observed else Health(0, Status.STOPPED, "stopped: 0 replicas wanted")
        return Assessment(health, head.proven)
    whole = _whole(head, observed, now, waiting)
    return whole if whole.lasting or waiting else replace(whole, health=_after_failure(head, whole.health))


def _whole(head: Head, observed: Sequence[Observed], now: float, waiting: Waiting | None, *, old_serves: bool = True) -> Assessment:
    """Judge a revision that wants replicas. ``old_serves``: what runs of another revision is worth something."""
    revision = head.revision
    current, rest = sort_out(head, observed)
    replicas = [_in_turn(waiting, index, _replica(head, index, current.get(index), now)) for index in range(revision.pkg.replicas)]
    beyond = [seen for seen in rest if seen.hash != revision.instance_hash or seen.name.replica >= len(replicas)]
    others = [seen for seen in beyond if seen.phase is Phase.RUNNING]
    whole = all(r.seasoned for r in replicas)
    wakes = [r.wake_at for r in replicas if r.wake_at is not None]
    health = _judge(head, replicas, others[0] if others and old_serves else None)
    return Assessment(
        health=health,
        proven=revision.instance_hash if whole else head.proven,
        wake_at=min(wakes, default=None),
        ready=frozenset(index for index, r in enumerate(replicas) if r.good),
        whole=whole,
        lasting=all(r.lasting for r in replicas),
        words=_judge(head, replicas, None).msg,
    )


def _fallen_back(head: Head, observed: Sequence[Observed], now: float, waiting: Waiting | None) -> Assessment:
    """The desired revision failed, and an older one, which is proven, is to run in its place."""
    older, deployment = head.running, head.deployment
    judged = _whole(replace(head, revision=older, deployment=None, proven=older.instance_hash), observed, now, waiting, old_serves=False)
    level, status, failed = judged.health.level, judged.health.status, f"{head.revision.title} failed"
    reason = deployment.reason if deployment else ""
    if level >= SERVES:
        status = Status.DEGRADED
    match deployment.stage if deployment else None:
        case Stage.ROLLING_BACK:
            words = f"rolling back to {older.title}; {failed}: {reason}"
        case _ if level >= SERVES:
            words = f"{older.title} serves again; {failed} and is blocked: {reason}"
        case Stage.ROLLBACK_FAILED if waiting is None:
            level, status, words = 0, Status.FAILED, f"{failed}: {reason}"
        case _:
            words = f"{older.title}, in place of {head.revision.title}, which failed: {judged.health.msg}"
    if waiting is not None and waiting.why not in words:
        words = f"{words}; {waiting.why}"
    return replace(judged, health=Health(min(level, RESTORED), status, words), proven="")


def _after_failure(head: Head, health: Health) -> Health:
    """What goes on being tried after its deployment has failed is not 'on its way'."""
    deployment = head.deployment
    if deployment is None or deployment.stage is not Stage.FAILED or health.level >= GOOD or health.status is Status.FAILED:
        return health
    if health.level >= SERVES:
        return Health(health.level, Status.DEGRADED, f"{head.revision.title} failed: {deployment.reason}; {health.msg}")
    return Health(0, Status.FAILED, deployment.reason)


def _in_turn(waiting: Waiting | None, index: int, alone: _Replica) -> _Replica:
    """A replica as it is ``alone``, unless it waits, or would start after one that does."""
    if waiting is None or not waiting.replicas:
        return alone
    held_up = index in waiting.replicas or alone.state is _State.STARTING
    return _Replica(_State.STARTING, waiting.why) if held_up else alone


def _replica(head: Head, index: int, seen: Observed | None, now: float) -> _Replica:
    pkg, tried = head.revision.pkg, head.attempts.get(index) or Attempts(index, head.revision.instance_hash)
    if seen is not None and seen.phase is Phase.RUNNING:
        return _running(head, tried, seen, now)
    if seen is not None and seen.phase is Phase.PAUSED:
        return _Replica(_State.WAITING, "paused")
    if schedule.of(head.revision) is not None:
        return _between_runs(head, tried)
    if finished(tried, pkg):
        return _Replica(_State.DONE, f"completed: {last_words(tried)}", seasoned=True)
    if given_up(tried, pkg):
        return _Replica(_State.FAILED, final_words(tried, pkg))
    if pkg.type == "script" and pkg.check is not None and not tried.last_failure and (not tried.exits or tried.checked is None):
        return _Replica(_State.STARTING, "asking its check" if tried.checked is None else tried.checked.words)
    if not tried.failures:
        return _Replica(_State.STARTING, "starting")
    if tried.failures < CRASH_LOOP or (pkg.type == "script" and not tried.last_failure):
        return _Replica(_State.WAITING, f"{last_words(tried)}; {_next_try(tried, pkg)}")
    looping = last_words(tried) if tried.last_failure else f"crash-looping: {last_words(tried)}"
    return _Replica(_State.LOOPING, looping)  # without a count: each would be another row of history


def _between_runs(head: Head, tried: Attempts) -> _Replica:
    """A script with a schedule is as well as its last turn, and before the first one it is well."""
    pkg, turn, follows = head.revision.pkg, tried.turn or Turn(head.revision.submitted_at), _follows(head, tried)
    if given_up(tried, pkg):
        return _Replica(_State.FAILED, f"{final_words(tried, pkg)}; {follows}")
    if turn.failed and not finished(tried, pkg):
        return _Replica(_State.FAILED, f"{turn.failed}; {follows}")
    if tried.last_failure and tried.failures >= CRASH_LOOP:
        return _Replica(_State.LOOPING, tried.last_failure)
    if finished(tried, pkg) or (turn.succeeded and not tried.failures):
        return _Replica(_State.DONE, f"completed: exited with code 0; {follows}", seasoned=True)
    if tried.failures:
        return _Replica(_State.READY, f"{last_words(tried)}; {_next_try(tried, pkg)}", seasoned=True, level=FAILING)
    return _Replica(_State.DONE, "about to run" if turn.wanted else f"waiting for its first run; {follows}", seasoned=True)


def _on_schedule(head: Head, tried: Attempts, seen: Observed, now: float) -> _Replica:
    """A run of a script with a schedule goes on: until it has ended, the runs before it decide.

    While it is young the words are those that will do if it ends as the last one did, so that short runs are not three changes of health.
    """
    turn = tried.turn or Turn(head.revision.submitted_at)
    grown_at = None if seen.started is None or tried.last_exit is not None else seen.started + LONG_SECONDS
    if grown_at is not None and now < grown_at and (turn.failed or turn.succeeded):
        return replace(_between_runs(head, tried), wake_at=grown_at)
    if turn.failed:
        return _Replica(_State.FAILED, f"{turn.failed}; running again")
    if tried.last_exit is not None:
        return _Replica(_State.READY, f"running again: {last_words(tried)}", seasoned=True, level=FAILING)
    return _Replica(_State.READY, "running", seasoned=True)


def _follows(head: Head, tried: Attempts) -> str:
    at = schedule.next_run(tried, head.revision)
    return f"next run at {timestamp(at)}" if at is not None else "no run follows"


def _running(head: Head, tried: Attempts, seen: Observed, now: float) -> _Replica:
    pkg, probed = head.revision.pkg, tried.findings(seen)
    if schedule.of(head.revision) is not None:
        return _on_schedule(head, tried, seen, now)
    since = seen.started if probed is None else probed.well_since
    since = max(since, seen.reloaded) if since is not None and seen.reloaded is not None else since
    settled_at = None if since is None else since + pkg.rollout.min_healthy_seconds
    seasoned = settled_at is not None and now >= settled_at
    looping = tried.exits >= CRASH_LOOP
    proven = head.proven == head.revision.instance_hash
    unwell = _unhooked(head, seen) or (None if probed is None else _unwell(probed, proven=proven))
    if unwell is None and (seasoned or (proven and not looping)):
        restarted = tried.restarted.at if tried.restarted is not None and tried.restarted.at > now else None
        later = [at for at in (restarted, None if seasoned else settled_at) if at is not None]
        level, msg = _blemished(tried, probed, restarted=restarted is not None)
        return _Replica(_State.READY, msg, min(later, default=None), seasoned, level)
    if looping and pkg.type != "script":  # it runs: starts that failed before it do not matter any more
        lost = unwell is not None and probed is not None and probed.lost
        return _Replica(_State.LOOPING, unwell.msg if unwell and lost else f"crash-looping: {last_words(tried)}", settled_at)
    if unwell is not None:
        return unwell
    doing = "running" if probed is None else "ready"
    return _Replica(_State.SETTLING, f"{doing} for less than {pkg.rollout.min_healthy_seconds:g} s", settled_at)


def _unhooked(head: Head, seen: Observed) -> _Replica | None:
    """Before its ``post_start`` hook has succeeded an instance is not there yet."""
    if hooks.post_start(head, seen) is None:
        return None
    why = hooks.failed(head, seen)
    return _Replica(_State.WAITING, f"{why}; restarting") if why else _Replica(_State.UNSTARTED, "starting: its post_start hook is due")


def _unwell(probed: Probed, *, proven: bool) -> _Replica | None:
    """What its probes have against it; None where it is ready."""
    lost = proven and probed.lost and not probed.ready
    if probed.doomed:
        return _Replica(_State.LOST if lost else _State.WAITING, f"{probed.doomed}; restarting")
    if not probed.started:
        return _Replica(_State.UNSTARTED, f"starting: {probed.why}")
    if probed.ready:
        return None
    return _Replica(_State.LOST if lost else _State.UNREADY, f"not ready: {probed.why}")


def _blemished(tried: Attempts, probed: Probed | None, *, restarted: bool) -> tuple[int, str]:
    if probed is not None and probed.blemish:
        return FAILING, probed.blemish
    return (RESTARTED, f"restarted: {last_words(tried)}") if restarted else (100, "running")


def _judge(head: Head, replicas: Sequence[_Replica], old: Observed | None) -> Health:
    total = len(replicas)
    good = [r for r in replicas if r.good]
    bad = [r for r in replicas if not r.good]
    if not bad:
        return _all_good(replicas)
    if good:
        status = Status.DEGRADED if head.proven == head.revision.instance_hash else Status.DEPLOYING
        beside = f"revision {old.revision} ({old.version}) still serves; " if old is not None else ""
        return Health(50 + 29 * len(good) // total, status, f"{len(good)} of {total} replicas ready; {beside}{bad[0].msg}")
    worst = max(bad, key=lambda r: r.state.value)
    if old is not None:
        return Health(50, Status.DEPLOYING, f"revision {old.revision} ({old.version}) still serves; {worst.msg}")
    match worst.state:
        case _State.FAILED | _State.LOOPING | _State.LOST:
            return Health(0, Status.FAILED, worst.msg)
        case _:
            return Health(_ALONE[worst.state], Status.DEPLOYING, worst.msg)


def _all_good(replicas: Sequence[_Replica]) -> Health:
    worst = min(replicas, key=lambda r: r.level)
    if worst.level < 100:
        return Health(worst.level, Status.RUNNING, worst.msg)
    if all(r.state is _State.DONE for r in replicas):
        return Health(100, Status.COMPLETED, replicas[0].msg)
    total = len(replicas)
    return Health(100, Status.RUNNING, "Running" if total == 1 else f"{total} of {total} replicas running")


def unknown(head: Head, why: str, since: float, now: float) -> Assessment:
    """The health while a driver cannot answer: the last known level, dropping with time, never 'missing'."""
    ceiling = next(level for after, level in reversed(UNKNOWN_STEPS) if now - since >= after)
    level = min(head.health.level, ceiling)
    status = Status.DEGRADED if head.health.status is Status.RUNNING and level < GOOD else head.health.status
    later = [since + after for after, _ in UNKNOWN_STEPS if since + after > now]
    return Assessment(Health(level, status, f"state unknown: {why}"), head.proven, min(later, default=None))


def _next_try(tried: Attempts, pkg: Pkg) -> str:
    limit = max_attempts(pkg)
    return "trying again" if limit is None else f"attempt {tried.exits + 1} of {limit} follows"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
