"""What to do. Each action says why, and its cause reaches the history."""

from __future__ import annotations

from collections.abc import Callable
from types import UnionType

from msgspec import Struct

from boreas_agent.model.desired import Instance
from boreas_agent.model.observed import Observed
from boreas_agent.spec import Hook


class Prepare(Struct, frozen=True):
    """Make everything ready that a start needs (pull the image), before anything is stopped."""

    want: Instance
    cause: str


class PreStart(Struct, frozen=True):
    """Run the deployment's ``pre_start`` hook, as ``want`` but apart from any instance, before anything is stopped or started."""

    want: Instance
    hook: Hook
    cause: str


class Start(Struct, frozen=True):
    """Create the instance if need be and start it; ``after`` is the run it follows (``Observed.run``)."""

    want: Instance
    after: int
    cause: str


class Check(Struct, frozen=True):
    """Ask the script's check, for ``seconds`` at most, whether the script need run."""

    want: Instance
    seconds: float
    cause: str


class PostStart(Struct, frozen=True):
    """Run the ``post_start`` hook beside an instance that was started."""

    seen: Observed
    hook: Hook
    cause: str


class Stop(Struct, frozen=True):
    """End the instance's whole process tree: the ``pre_stop`` hook where there is one, signal, grace, SIGKILL."""

    seen: Observed
    signal: str
    grace_seconds: float
    cause: str
    pre_stop: Hook | None = None


class Reload(Struct, frozen=True):
    """Let a running instance go over to ``want``, from which it differs in nothing but what some files hold.

    These are written anew, and then its main process gets ``signals``; it keeps its name.
    """

    seen: Observed
    want: Instance
    signals: tuple[str, ...]
    cause: str


class Remove(Struct, frozen=True):
    """Delete what is left of a stopped instance (container, run folder, cgroup); never its logs."""

    seen: Observed
    cause: str


class Resume(Struct, frozen=True):
    """Unpause."""

    seen: Observed
    cause: str


class Rename(Struct, frozen=True):
    """Give it back its derived name."""

    seen: Observed
    cause: str


Action = Prepare | PreStart | Check | Start | PostStart | Stop | Reload | Remove | Resume | Rename


class Plan(Struct, frozen=True):
    """Ordered steps; the actions of one step are independent and may run together.

    ``wake_at`` (boot seconds) is when planning again could give another answer though nothing happened. ``held``: the replicas
    that are prepared and not started, for they wait for other apps.
    """

    steps: tuple[tuple[Action, ...], ...] = ()
    wake_at: float | None = None
    held: frozenset[int] = frozenset()

    @property
    def actions(self) -> tuple[Action, ...]:
        """All actions in order."""
        return tuple(action for step in self.steps for action in step)

    def has(self, kinds: type[Action] | UnionType) -> bool:
        """Whether any of the actions is one of these."""
        return any(isinstance(action, kinds) for step in self.steps for action in step)

    def only(self, stays: Callable[[Action], bool]) -> Plan:
        """The plan without the actions that do not stay."""
        steps = tuple(tuple(action for action in step if stays(action)) for step in self.steps)
        return Plan(tuple(step for step in steps if step), self.wake_at, self.held)


class Waiting(Struct, frozen=True):
    """What of a plan is left undone until other apps are ready for it, and why: ``replicas`` are those that are not started."""

    replicas: frozenset[int]
    why: str
