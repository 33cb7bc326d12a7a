"""What packages of every type have, and their canonical form.

"Not given" and "given with its default" mean the same, so the canonical form leaves defaults out; a later version with new
defaulted fields therefore computes the same hashes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Self

from pydantic import Field

from boreas_agent.spec.dependencies import Dependencies
from boreas_agent.spec.fields import LIST, AbsolutePath, EnvKey, Model, Text, User, Words
from boreas_agent.spec.hooks import Hooks
from boreas_agent.spec.logs import LogPolicy
from boreas_agent.spec.policies import MAX_REPLICAS, Restart, Rollout, StopPolicy
from boreas_agent.spec.probes import HealthSpec
from boreas_agent.spec.resources import EnvironmentFile, Resources

sorted_json = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode


class Common(Model):
    args: Words = ()
    environment: dict[EnvKey, Text] = Field(default_factory=dict)
    environment_from: Annotated[tuple[EnvironmentFile, ...], *LIST] = ()
    replicas: Annotated[int, Field(ge=0, le=MAX_REPLICAS)] = 1
    working_dir: AbsolutePath | None = None
    user: User | None = None
    resources: Resources = Resources()
    depends_on: Dependencies = ()
    restart: Restart = Restart()
    log: LogPolicy = LogPolicy()
    health: HealthSpec = HealthSpec()
    rollout: Rollout = Rollout()
    stop: StopPolicy = StopPolicy()
    hooks: Hooks = Hooks()

    @cached_property
    def canonical_form(self) -> dict[str, Any]:
        """See :func:`canonical`; made once for all its uses."""
        return self.model_dump(mode="json", exclude_defaults=True, exclude_unset=True)  # the latter are not even compared

    @cached_property
    def canonical_text(self) -> str:
        """The canonical form as JSON with sorted keys: what every hash and record of a revision is made from."""
        return sorted_json(self.canonical_form)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """As pydantic's, but the copy does not inherit the canonical form of what it was copied from."""
        copied = super().model_copy(update=update, deep=deep)
        copied.__dict__.pop("canonical_form", None)
        copied.__dict__.pop("canonical_text", None)
        return copied
