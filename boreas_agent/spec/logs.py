"""How much of what an app writes is kept, and, of containers, by whom."""

from __future__ import annotations

import re
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Field

from boreas_agent.spec.fields import EnvKey, Model, Text, misplaced
from boreas_agent.spec.resources import as_bytes, normal_size, number_as_text

LEAST, MOST = 64 * 1024, 64 * 2**30
BOUNDED = frozenset({"json-file", "local"})
"""The engine's log drivers that keep files of their own, and call the bounds of these ``max-size`` and ``max-file``."""
_DRIVER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/-]{0,127}")


def _log_size(size: str) -> str:
    kept = normal_size(size)
    if not LEAST <= as_bytes(kept) <= MOST:
        raise ValueError("must be between '64Ki' and '64Gi'")
    return kept


def _log_driver(name: str) -> str:
    if not _DRIVER.fullmatch(name):
        raise ValueError("must be the name of a log driver of the engine, such as 'local', 'journald' or 'syslog'")
    return name


class LogPolicy(Model):
    """Of each replica (of processes: of each of its streams) the newest ``max_files`` times ``max_size`` bytes are kept.

    Of containers ``driver`` and its ``options`` are the engine's, by the names that it has for them. Without a driver it is
    ``json-file`` where the engine's own default is that, or a bound is given; else that default.
    """

    max_size: Annotated[str, BeforeValidator(number_as_text), AfterValidator(_log_size)] = "10Mi"
    max_files: Annotated[int, Field(ge=1, le=1000)] = 3
    driver: Annotated[str, AfterValidator(_log_driver)] | None = None
    options: dict[EnvKey, Text] = Field(default_factory=dict)

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """Itself, since nothing changes it: pydantic copies a default that has no hash, as what holds a dict, for each app without one."""
        return self

    @property
    def most(self) -> int:
        """All of it, in bytes."""
        return as_bytes(self.max_size) * self.max_files


def check_container_log(log: LogPolicy) -> None:
    """Raises what is wrong with it for a container."""
    if log.options and log.driver is None:
        raise misplaced("log.driver", "give the driver that log.options are for")
    for field, option in (("max_size", "max-size"), ("max_files", "max-file")):
        if field not in log.model_fields_set:
            continue
        if log.driver is not None and log.driver not in BOUNDED:
            raise misplaced(f"log.{field}", f"only json-file and local keep files that it could bound; leave it out with {log.driver}")
        if option in log.options:
            raise misplaced(f"log.options.{option}", f"log.{field} says the same; give one of them")


def check_process_log(log: LogPolicy) -> None:
    """The same for a process, whose output is in files."""
    for field in ("driver", "options"):
        if getattr(log, field):
            raise misplaced(f"log.{field}", "only containers have log drivers; leave it out")
