"""Pure: which app waits for which, for how long, and what it leaves undone meanwhile.

New instances are started only while every app in ``depends_on`` is in the condition that is asked for, by what is seen at that
moment: what is on record of an app may be from before the machine went down. Until then whatever runs stays, the old version
included. An instance that has run before is not new, unless everything may have ended together (``Familiar``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from boreas_agent import ledger, rollout
from boreas_agent.backoff import Moment
from boreas_agent.health import GOOD, assess
from boreas_agent.model import Action, Check, Head, Health, Observed, Plan, Probed, Start, Status, Stop, Waiting
from boreas_agent.planner import sort_out
from boreas_agent.probing import digest, targets
from boreas_agent.spec import Dependency

_MOST_SHOWN = 3
After = Callable[[str], Iterable[str]]
"""The apps that an app depends on."""


# --- how a dependency is -------------------------------------------------------------------------


class Found(Struct, frozen=True):
    """A dependency as it is. ``up``: every wanted replica runs or has completed. ``unknown``: why nobody can say how it is."""

    head: Head
    health: Health
    up: bool = False
    unknown: str = ""


def find(head: Head, observed: Sequence[Observed], moment: Moment, wall: datetime) -> Found:
    """What ``observed`` makes of an app; of its probes, what is on record of these very runs."""
    known = {replica: tried.probed for replica, tried in head.attempts.items() if tried.probed is not None}
    head = replace(head, attempts=ledger.enter(head, observed, moment, wall, known).attempts)
    judged = assess(head, observed, moment.boottime)
    up = rollout.look(head, observed, judged, ()).up
    if all(_speaks_of(known.get(replica), seen, head) for replica, seen in targets(head, observed).items()):
        return Found(head, judged.health, up)
    return Found(head, Health(min(judged.health.level, GOOD - 1), Status.DEPLOYING, "its probes have not been asked yet"), up)


def _speaks_of(probed: Probed | None, seen: Observed, head: Head) -> bool:
    return probed is not None and probed.run == seen.run_key and probed.by == digest(head.running.pkg)


def lacks(need: Dependency, found: Found | None) -> str:
    """Why the condition does not hold; empty where it does."""
    if found is None:
        return f"{need.app}: there is no such app on this node"
    if found.head.revision.removed:
        return f"{need.app}: it is being removed"
    if found.unknown:
        return f"{need.app}: {found.unknown}"
    if not found.head.running.wanted:
        return f"{need.app}: it is stopped, for 0 replicas of it are wanted"
    health = found.health
    now = f"{need.app} is {health.status} ({health.level})"
    match need.condition:
        case "running":
            return "" if found.up else f"{need.app} to be running: {now}"
        case "healthy":
            return "" if health.level >= GOOD else f"{need.app} to be healthy: {now}"
        case "completed":
            return "" if health.status is Status.COMPLETED else f"{need.app} to complete: {now}"


def why(app: str, needs: Sequence[Dependency], found: Mapping[str, Found], after: After) -> str:
    """What new instances of ``app`` wait for, in words; empty where nothing holds them up."""
    lacking = [(need.app, reason) for need in needs if (reason := lacks(need, found.get(need.app)))]
    if not lacking:
        return ""
    shown = ", and for ".join(reason for _, reason in lacking[:_MOST_SHOWN])
    more = f", and for {len(lacking) - _MOST_SHOWN} more" if len(lacking) > _MOST_SHOWN else ""
    round_about = path_back(app, [name for name, _ in lacking], after)
    itself = f"waits for itself: {arrows(round_about)}; " if round_about else ""
    return f"{itself}waiting for {shown}{more}"


# --- the graph -----------------------------------------------------------------------------------


def needed(head: Head | None) -> tuple[str, ...]:
    """The apps that what is to run of an app depends on."""
    return () if head is None or head.running.removed else tuple(need.app for need in head.running.pkg.depends_on)


def path_back(app: str, needs: Iterable[str], after: After) -> tuple[str, ...]:
    """The shortest way from ``app``, which depends on ``needs``, to itself, both ends included; empty where there is none."""
    reached = _reach(app, needs, after)
    if app not in reached:
        return ()
    path = [app]
    while len(path) == 1 or path[-1] != app:
        path.append(reached[path[-1]])
    return tuple(reversed(path))


def everything_before(app: str, needs: Iterable[str], after: After) -> frozenset[str]:
    """All apps that ``app`` depends on, directly or not."""
    return frozenset(_reach(app, needs, after))


def _reach(app: str, needs: Iterable[str], after: After) -> dict[str, str]:
    """The apps that can be reached, each with the one that leads to it."""
    led: dict[str, str] = {}
    ahead = deque((name, app) for name in needs)
    while ahead:
        name, by = ahead.popleft()
        if name not in led:
            led[name] = by
            ahead.extend((further, name) for further in after(name))
    return led


def arrows(path: Sequence[str]) -> str:
    """A way through the graph, for people."""
    return " -> ".join(path)


# --- what waits ----------------------------------------------------------------------------------


class Familiar(Struct, frozen=True):
    """The replicas of an instance hash that have been seen running, or were started, since the ``epoch`` of their driver began.

    Starting one of these again is healing, and that waits for nobody. After a reboot, or when the engine came anew, none is left: then
    the order of start holds again. An agent that has just begun knows none either, and errs on the side of order.
    """

    hash: str
    epoch: int
    replicas: frozenset[int] = frozenset()


def familiar(before: Familiar | None, head: Head, observed: Sequence[Observed], epoch: int) -> Familiar:
    """``before`` with what is seen running now; nothing of it is left for another hash or epoch."""
    running = head.running
    if before is None or (before.hash, before.epoch) != (running.instance_hash, epoch):
        before = Familiar(running.instance_hash, epoch)
    current, _ = sort_out(head, observed)
    up = frozenset(replica for replica, seen in current.items() if seen.up)
    return replace(before, replicas=frozenset(replica for replica in before.replicas | up if replica < running.wanted))


def newcomers(planned: Plan, head: Head, observed: Sequence[Observed], known: Familiar) -> frozenset[int]:
    """The replicas that ``planned`` starts and that have to wait their turn.

    Where old instances would make room, that is for what is not there, familiar or not.
    """
    current, _ = sort_out(head, observed)
    at_home = known.replicas & current.keys() if any(_makes_room(action, head) for action in planned.actions) else known.replicas
    return frozenset(action.want.name.replica for action in planned.actions if isinstance(action, Check | Start)) - at_home


def hold_back(planned: Plan, head: Head, waiting: Waiting) -> Plan:
    """``planned`` without the starts of what waits, and without the end of what it would take the place of."""

    def stays(action: Action) -> bool:
        waits = isinstance(action, Check | Start) and action.want.name.replica in waiting.replicas
        return not waits and not _makes_room(action, head)

    return replace(planned.only(stays), held=waiting.replicas)


def _makes_room(action: Action, head: Head) -> bool:
    return isinstance(action, Stop) and head.running.wanted > 0 and action.seen.hash != head.running.instance_hash


def keep_running(planned: Plan) -> Plan:
    """``planned`` without stops."""
    return planned.only(lambda action: not isinstance(action, Stop))


def runs(observed: Sequence[Observed]) -> bool:
    """Something of an app still runs."""
    return any(seen.up for seen in observed)
