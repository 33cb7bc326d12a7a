"""Pure: how well an app is, as a number, a word and a reason (contract, section 4).

The level always speaks of the desired revision. 80 is the line above which it serves. A revision that was
never wholly healthy must run, or where it has probes be ready, for ``min_healthy_seconds`` first; a proven one is healthy as
soon as it runs, or is ready, again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from boreas_agent.backoff import finished, given_up
from boreas_agent.model import Attempts, Head, Health, Observed, Phase, Probed, Status
from boreas_agent.planner import sort_out
from boreas_agent.spec import Pkg, max_attempts

CRASH_LOOP = 2
"""From this many consecutive failures on an app is crash-looping until it has run for min_healthy_seconds."""
UNKNOWN_STEPS = ((0.0, 99), (30.0, 79), (300.0, 50))
"""While a driver cannot answer: after so many seconds the level is at most so high."""


@dataclass(frozen=True, slots=True)
class Assessment:
    """The health, whether the instance hash is proven by now, and when time alone may change either (boot seconds)."""

    health: Health
    proven: str
    wake_at: float | None = None


RESTARTED, FAILING = 90, 85
"""Levels of what serves with a blemish: an instance was restarted not long ago; a probe has failed lately."""


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


@dataclass(frozen=True, slots=True)
class _Replica:
    state: _State
    msg: str
    wake_at: float | None = None
    seasoned: bool = False  # ready by its own running time, not because an earlier one was
    level: int = 100  # of one that serves


def assess(head: Head, observed: Sequence[Observed], now: float) -> Assessment:
    """Judge what was seen; ``now`` in boot seconds. ``head.attempts`` must count every exit in ``observed``."""
    revision = head.revision
    if revision.removed:
        return Assessment(Health(0, Status.REMOVING, f"removing: {_count(len(observed), 'instance')} left"), "")
    if revision.pkg.replicas == 0:
        health = Health(0, Status.DEPLOYING, "stopping") if observed else Health(0, Status.STOPPED, "stopped: 0 replicas wanted")
        return Assessment(health, head.proven)
    current, rest = sort_out(head, observed)
    replicas = [_replica(head, index, current.get(index), now) for index in range(revision.pkg.replicas)]
    old = next((seen for seen in rest if seen.phase is Phase.RUNNING and seen.hash != revision.instance_hash), None)
    proven = revision.instance_hash if all(r.seasoned for r in replicas) else head.proven
    wakes = [r.wake_at for r in replicas if r.wake_at is not None]
    return Assessment(_judge(head, replicas, old), proven, min(wakes, default=None))


def _replica(head: Head, index: int, seen: Observed | None, now: float) -> _Replica:
    pkg, tried = head.revision.pkg, head.attempts.get(index) or Attempts(index, head.revision.instance_hash)
    if seen is not None and seen.phase is Phase.RUNNING:
        return _running(head, tried, seen, now)
    if seen is not None and seen.phase is Phase.PAUSED:
        return _Replica(_State.WAITING, "paused")
    if finished(tried, pkg):
        return _Replica(_State.DONE, f"completed: {tried.last_exit}", seasoned=True)
    if given_up(tried, pkg):
        unknown_end = pkg.type == "script" and tried.last_exit is not None and tried.last_exit.lost
        words = _last_words(tried).removeprefix("outcome unknown: ")
        return _Replica(_State.FAILED, f"outcome unknown: {words}" if unknown_end else words)
    if not tried.failures:
        return _Replica(_State.STARTING, "starting")
    if tried.failures < CRASH_LOOP or (pkg.type == "script" and not tried.last_failure):
        return _Replica(_State.WAITING, f"{_last_words(tried)}; {_next_try(tried, pkg)}")
    looping = _last_words(tried) if tried.last_failure else f"crash-looping: {_last_words(tried)}"
    return _Replica(_State.LOOPING, looping)  # without a count: each would be another row of history


def _running(head: Head, tried: Attempts, seen: Observed, now: float) -> _Replica:
    pkg, probed = head.revision.pkg, tried.findings(seen)
    since = seen.started if probed is None else probed.well_since
    settled_at = None if since is None else since + pkg.rollout.min_healthy_seconds
    seasoned = settled_at is not None and now >= settled_at
    looping = tried.exits >= CRASH_LOOP
    proven = head.proven == head.revision.instance_hash
    unwell = None if probed is None else _unwell(probed, proven=proven)
    if unwell is None and (seasoned or (proven and not looping)):
        restarted = tried.restarted.at if tried.restarted is not None and tried.restarted.at > now else None
        later = [at for at in (restarted, None if seasoned else settled_at) if at is not None]
        level, msg = _blemished(tried, probed, restarted=restarted is not None)
        return _Replica(_State.READY, msg, min(later, default=None), seasoned, level)
    if looping and pkg.type != "script":  # it runs: starts that failed before it do not matter any more
        lost = unwell is not None and probed is not None and probed.lost
        return _Replica(_State.LOOPING, unwell.msg if unwell and lost else f"crash-looping: {_last_words(tried)}", settled_at)
    if unwell is not None:
        return unwell
    doing = "running" if probed is None else "ready"
    return _Replica(_State.SETTLING, f"{doing} for less than {pkg.rollout.min_healthy_seconds:g} s", settled_at)


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
    return (RESTARTED, f"restarted: {_last_words(tried)}") if restarted else (100, "running")


def _judge(head: Head, replicas: Sequence[_Replica], old: Observed | None) -> Health:
    total = len(replicas)
    good = [r for r in replicas if r.state in (_State.READY, _State.DONE)]
    bad = [r for r in replicas if r not in good]
    if not bad:
        return _all_good(replicas)
    if good:
        status = Status.DEGRADED if head.proven == head.revision.instance_hash else Status.DEPLOYING
        return Health(50 + 29 * len(good) // total, status, f"{len(good)} of {total} replicas ready; {bad[0].msg}")
    worst = max(bad, key=lambda r: r.state.value)
    if old is not None:
        return Health(50, Status.DEPLOYING, f"revision {old.name.revision} ({old.version}) still serves; {worst.msg}")
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
    status = Status.DEGRADED if head.health.status is Status.RUNNING and level < 80 else head.health.status
    later = [since + after for after, _ in UNKNOWN_STEPS if since + after > now]
    return Assessment(Health(level, status, f"state unknown: {why}"), head.proven, min(later, default=None))


def _last_words(tried: Attempts) -> str:
    return tried.last_failure or str(tried.last_exit or "not started yet")


def _next_try(tried: Attempts, pkg: Pkg) -> str:
    limit = max_attempts(pkg)
    return "trying again" if limit is None else f"attempt {tried.exits + 1} of {limit} follows"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
