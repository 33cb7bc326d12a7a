"""What packages of every type have, and their canonical form.

"Not given" and "given with its default" mean the same, so the canonical form leaves defaults out; a later version with new
defaulted fields therefore computes the same hashes.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Self

from pydantic import Field

from boreas_agent import jsontext
from boreas_agent.spec.dependencies import Dependencies
from boreas_agent.spec.fields import LIST, AbsolutePath, EnvKey, Model, Text, User, Words
from boreas_agent.spec.hooks import Hooks
from boreas_agent.spec.logs import LogPolicy
from boreas_agent.spec.policies import MAX_REPLICAS, Restart, Rollout, StopPolicy
from boreas_agent.spec.probes import HealthSpec
from boreas_agent.spec.resources import EnvironmentFile, Resources


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
    def canonical_texts(self) -> Mapping[str, str]:
        """The fields of the canonical form as JSON, by name: what every hash and record is put together from."""
        return {name: jsontext.canonical(value) for name, value in self.canonical_form.items()}

    @property
    def canonical_text(self) -> str:
        """The canonical form as JSON with sorted keys."""
        return jsontext.joined(self.canonical_texts)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """As pydantic's, but the copy does not inherit the canonical form of what it was copied from."""
        copied = super().model_copy(update=update, deep=deep)
        for made in ("canonical_form", "canonical_texts"):
            copied.__dict__.pop(made, None)
        return copied
