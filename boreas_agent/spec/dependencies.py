"""Which other apps of the node an app waits for before it is started."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, FailFast, Field

from boreas_agent.spec.fields import AppName, Model

MAX_DEPENDENCIES = 64

Condition = Literal["running", "healthy", "completed"]


class Dependency(Model):
    """New instances are started only while ``app`` is in this condition.

    ``running``: every wanted replica runs or has completed. ``healthy``: its level is 80 or more. ``completed``: it has ended well.
    """

    app: AppName
    condition: Condition = "running"


def _long_form(value: object) -> object:
    """``db`` is short for ``{"app": "db"}``."""
    if isinstance(value, str):
        return {"app": value}
    if not isinstance(value, dict | Dependency):
        raise ValueError("must be the name of an app, or an object with app and condition")  # noqa: TRY004  pydantic's word for a fault
    return value


def _few(value: object) -> object:
    if isinstance(value, list) and len(value) > MAX_DEPENDENCIES:
        raise ValueError(f"must not have more than {MAX_DEPENDENCIES} entries")
    return value


def _each_once(needs: tuple[Dependency, ...]) -> tuple[Dependency, ...]:
    names: set[str] = set()
    for need in needs:
        if need.app in names:
            raise ValueError(f"{need.app} is given twice; one condition an app")
        names.add(need.app)
    return needs


Dependencies = Annotated[
    tuple[Annotated[Dependency, BeforeValidator(_long_form)], ...],
    Field(strict=False),
    FailFast(),
    BeforeValidator(_few),
    AfterValidator(_each_once),
]
