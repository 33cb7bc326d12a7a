"""What users ask for under ``hooks``: commands that go with the life of an app, with the names and semantics of Kubernetes."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from boreas_agent.spec.fields import Model
from boreas_agent.spec.probes import ExecCheck, given


class Hook(Model):
    """A command, without a shell, and how long it may take; later than that it is killed and counts as failed."""

    exec: ExecCheck
    timeout_seconds: Annotated[float, Field(ge=0.1, le=3600, allow_inf_nan=False)] = 30.0


class Hooks(Model):
    """``pre_start`` runs once for a deployment, before anything is stopped or started for it, and fails it; ``post_start`` runs
    beside each instance that was started, which is not ready before, and restarts it where it fails; ``pre_stop`` runs beside each
    instance that is to be stopped, before the signal, and stops nothing from being stopped.
    """

    pre_start: Hook | None = None
    post_start: Hook | None = None
    pre_stop: Hook | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_empty(cls, data: object) -> object:
        return given(data, cls.model_fields)
