"""How the agent treats instances: when they are started again, how one revision takes the place of another, how they end."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from boreas_agent.spec.fields import Model, Seconds, SignalName, misplaced

MAX_REPLICAS = 1000


class Restart(Model):
    """When and how fast an ended instance is started again. Delays are jittered by ±10%.

    The first restart after a run of at least ``reset_after_seconds`` is immediate. ``max_attempts`` None means
    without limit for docker and binary apps and 3 for scripts.
    """

    policy: Literal["always", "on-failure", "never"] | None = None
    initial_delay_seconds: Seconds = 1.0
    factor: Annotated[float, Field(ge=1, le=100, allow_inf_nan=False)] = 2.0
    max_delay_seconds: Seconds = 60.0
    reset_after_seconds: Seconds = 60.0
    max_attempts: Annotated[int, Field(ge=1, le=1_000_000)] | None = None


Count = Annotated[int, Field(ge=0, le=MAX_REPLICAS)]


class Rollout(Model):
    """How a new revision takes the place of the old one, and when that one comes back.

    ``recreate`` stops before it starts: ``max_unavailable`` (1) replicas at a time where there are several. ``start-first`` starts
    ``max_surge`` (1) more than there should be, and stops an old one only for a new one that is ready, or within ``max_unavailable`` (0).
    """

    strategy: Literal["recreate", "start-first"] = "recreate"
    progress_deadline_seconds: Seconds = 300.0
    min_healthy_seconds: Seconds = 10.0
    watch_seconds: Seconds = 60.0
    auto_rollback: bool = True
    max_unavailable: Count | None = None
    max_surge: Count | None = None

    @property
    def unavailable(self) -> int:
        """How many replicas may be missing while it goes on."""
        return self.max_unavailable if self.max_unavailable is not None else int(self.strategy == "recreate")

    @property
    def surge(self) -> int:
        """How many replicas there may be beyond those wanted."""
        return self.max_surge if self.max_surge is not None else int(self.strategy == "start-first")

    @model_validator(mode="after")
    def _can_move(self) -> Self:
        if self.strategy == "recreate" and self.surge:
            raise misplaced("max_surge", "recreate never runs more than the wanted replicas; strategy start-first does")
        if self.strategy == "recreate" and not self.unavailable:
            raise misplaced("max_unavailable", "must be 1 or more with recreate, which stops before it starts; start-first keeps all up")
        if self.strategy == "start-first" and not self.surge:
            raise misplaced("max_surge", "must be 1 or more with start-first, which starts before it stops")
        return self


class StopPolicy(Model):
    """How an instance is ended: the signal, then SIGKILL after the grace."""

    signal: SignalName = "SIGTERM"
    grace_seconds: Annotated[float, Field(ge=0, le=86400, allow_inf_nan=False)] = 10.0
