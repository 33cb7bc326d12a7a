"""Pure: a plan to its end, on the assumption that all goes well.

The planner looks one stride ahead and again after it; here each stride is applied to what was seen, and the planner asked again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import assert_never

from msgspec.structs import replace

from boreas_agent import hooks
from boreas_agent.model import (
    Action,
    Check,
    Head,
    Observed,
    Phase,
    PostStart,
    Prepare,
    PreStart,
    Reload,
    Remove,
    Rename,
    Resume,
    Start,
    Stop,
)
from boreas_agent.planner import plan, sort_out

_MOST_WAITS = 10


def rehearse(head: Head, observed: Sequence[Observed], now: float) -> Iterator[Sequence[Action]]:
    """The actions that lead from ``observed`` to the head's running revision, stride by stride."""
    seen, waits = list(observed), 0
    while waits <= _MOST_WAITS:
        current, _ = sort_out(head, seen)
        ready = [replica for replica, one in current.items() if one.phase is Phase.RUNNING and hooks.post_start(head, one) is None]
        stride = plan(head, seen, now, ready)
        if stride.steps:
            yield stride.actions
            if any(isinstance(action, Check) for action in stride.actions):
                return  # nobody knows what it would say
            seen, head = list(_after(seen, stride.actions)), _hooked(head, stride.actions)
        elif stride.wake_at is None:
            return
        else:
            now, waits = max(now, stride.wake_at), waits + 1


def _hooked(head: Head, actions: Sequence[Action]) -> Head:
    """What is on record once the hooks among ``actions`` have succeeded."""
    done = {hooks.key_of(action.seen): "" for action in actions if isinstance(action, PostStart)}
    pre_started = head.deployment is not None and any(isinstance(action, PreStart) for action in actions)
    deployment = replace(head.deployment, pre_started=True) if head.deployment is not None and pre_started else head.deployment
    return replace(head, hooked={**head.hooked, **done}, deployment=deployment)


def _after(seen: Sequence[Observed], actions: Sequence[Action]) -> Iterator[Observed]:
    """What is there once ``actions`` have worked. What was just started has always run, as far as the planner is concerned."""
    changed = {action.seen.ref: action for action in actions if not isinstance(action, Prepare | PreStart | Check | Start)}
    started = {action.want.name: action.want for action in actions if isinstance(action, Start)}
    for one in seen:
        if one.name in started:
            continue
        match changed.get(one.ref):
            case None | PostStart():
                yield one
            case Reload(_, want):
                yield replace(one, hash=want.hash, record=want.record, reloaded=0.0)
            case Stop():
                yield replace(one, phase=Phase.EXITED, started=None)
            case Resume():
                yield replace(one, phase=Phase.RUNNING)
            case Rename():
                yield replace(one, misnamed=False)
            case Remove():
                continue
            case action:
                assert_never(action)
    for name, want in started.items():
        yield Observed(name, want.pkg.type, want.version, want.hash, f"new {name}", Phase.RUNNING, record=want.record)
