"""Pure: what an app comes to while the node is drained.

Its desired state stays as it is; it is only read as if it wanted no replica, so that everything ends as it would for
that, and starts anew once the drain is over. A script that is under way is the exception: it is waited for, because cut
in the middle it might do half of its work, and then all of it again. No script is started.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from boreas_agent.model import Action, Check, Drained, Head, Health, Observed, Plan, Prepare, PreStart, Remove, Start, Status, Stop

_UNDER_WAY = (Status.PENDING, Status.DEPLOYING)


def wanted(head: Head, drained: Drained | None) -> Head:
    """``head`` as it is to be read now."""
    revision = head.revision
    if drained is None or head.hold is not None or revision.removed or revision.pkg.type == "script":
        return head
    stopped = replace(revision, pkg=revision.pkg.model_copy(update={"replicas": 0}))
    return replace(head, revision=stopped, deployment=None)  # neither its rollout nor its rollback goes on meanwhile


def plan(head: Head, planned: Plan, drained: Drained | None) -> Plan:
    """``planned`` (for ``wanted``) without starts, nor checks whether to start; what ends for the drain says so."""
    if drained is None or head.hold is not None:
        return planned
    steps = tuple(
        tuple(_told(action, head) for action in step if not isinstance(action, Prepare | PreStart | Check | Start))
        for step in planned.steps
    )
    return Plan(tuple(step for step in steps if step), planned.wake_at)


def health(head: Head, observed: Sequence[Observed], judged: Health, drained: Drained | None, waiting: str = "") -> Health:
    """``judged`` (of ``wanted``) in the words of the drain, where that is why; ``waiting``: what is not stopped yet, for another app."""
    if drained is None or head.hold is not None or head.revision.removed:
        return judged
    because = f"the node is drained by {drained.by}" + (f": {drained.reason}" if drained.reason else "")
    runs = any(seen.up for seen in observed)
    if head.revision.pkg.type == "script":
        return judged if runs or judged.status not in _UNDER_WAY else Health(0, Status.STOPPED, f"not started: {because}")
    return replace(judged, msg=f"{waiting or ('stopping' if observed else 'stopped')}: {because}")


def _told(action: Action, head: Head) -> Action:
    ended = isinstance(action, Stop | Remove) and not head.revision.removed and head.revision.pkg.type != "script"
    return replace(action, cause="the node is drained") if ended else action
