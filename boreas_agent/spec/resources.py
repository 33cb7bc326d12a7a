"""What an instance may use of the machine, and how its first process is set up.

Sizes are binary, as Docker and systemd read them (``512m`` and ``512Mi`` are the same); processors are cores, or Kubernetes'
thousandths of one.
"""

from __future__ import annotations

import re
import resource
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from boreas_agent.spec.fields import AbsolutePath, Model, misplaced

_SIZE = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,20})?)\s*(?:([kmgt])(?:i?b?)?|b)?", re.IGNORECASE)
_SHIFTS: Mapping[str, int] = MappingProxyType({"": 0, "k": 10, "m": 20, "g": 30, "t": 40})
_CPUS = re.compile(r"[0-9]{1,9}m|[0-9]{1,9}(?:\.[0-9]{1,20})?")
_CPU_SET = re.compile(r"[0-9]{1,9}(?:-[0-9]{1,9})?(?:,[0-9]{1,9}(?:-[0-9]{1,9})?)*")
LEAST_MEMORY = 6 * 2**20
"""The engine's own least; a program cannot even be started with much less."""
_LEAST_CPU, _MOST_CPU = 0.01, 4096.0
_MOST_PROCESSOR = 4095


def as_bytes(size: str) -> int:
    """The bytes that a size such as ``512Mi`` or ``512m`` means. Raises ValueError."""
    found = _SIZE.fullmatch(size.strip())
    if found is None:
        raise ValueError("must be a size such as '512Mi' or '512m'")
    number, unit = found[1], 2 ** _SHIFTS[(found[2] or "").lower()]
    return int(float(number) * unit) if "." in number else int(number) * unit


def as_cpus(amount: str) -> float:
    """The cores that a valid ``cpu_limit`` means."""
    return int(amount[:-1]) / 1000 if amount.endswith("m") else float(amount)


def number_as_text(value: object) -> object:
    """``512`` is as good as ``"512"``."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _cores_as_text(value: object) -> object:
    """``cpu_limit: 1.5`` is as good as ``cpu_limit: "1.5"``."""
    return f"{value:g}" if isinstance(value, float) else number_as_text(value)


def normal_size(size: str) -> str:
    """``size`` in the one form that is kept: what means the same replaces nothing. Raises ValueError."""
    number = as_bytes(size)
    unit = max((unit for unit, shift in _SHIFTS.items() if number % 2**shift == 0), key=_SHIFTS.__getitem__)
    return str(number) if not unit else f"{number >> _SHIFTS[unit]}{unit.upper()}i"


def _cpu_limit(amount: str) -> str:
    """In the one form that is kept: what means the same replaces nothing."""
    if not _CPUS.fullmatch(amount) or not _LEAST_CPU <= as_cpus(amount) <= _MOST_CPU:
        raise ValueError("must be a number of cores such as '1.5' or '500m', at least '10m'")
    return f"{as_cpus(amount):g}"


def _memory_limit(size: str) -> str:
    kept = normal_size(size)
    if not LEAST_MEMORY <= as_bytes(kept) < 2**62:
        raise ValueError("must be between '6Mi' and '4194304Ti'")
    return kept


def _cpu_set(processors: str) -> str:
    if not _CPU_SET.fullmatch(processors):
        raise ValueError("must be a list of processors such as '0-1' or '0,2'")
    for part in processors.split(","):
        first, _, last = part.partition("-")
        if int(first) > int(last or first) or int(last or first) > _MOST_PROCESSOR:
            raise ValueError(f"{part!r} is no range of processors: the lower comes first, and the highest is {_MOST_PROCESSOR}")
    return processors


class Resources(Model):
    """Limits. A process that wants more memory is killed, one that wants more of a processor waits."""

    cpu_limit: Annotated[str, BeforeValidator(_cores_as_text), AfterValidator(_cpu_limit)] | None = None
    memory_limit: Annotated[str, BeforeValidator(number_as_text), AfterValidator(_memory_limit)] | None = None
    cpu_set: Annotated[str, AfterValidator(_cpu_set)] | None = None
    pids_limit: Annotated[int, Field(ge=1, le=4_194_304)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_empty(cls, value: Any) -> Any:
        """The platform's controller sends every field it knows of."""
        return {key: given for key, given in value.items() if given not in ("", None)} if isinstance(value, dict) else value

    @property
    def cpus(self) -> float | None:
        """``cpu_limit`` in cores."""
        return None if self.cpu_limit is None else as_cpus(self.cpu_limit)

    @property
    def memory(self) -> int | None:
        """``memory_limit`` in bytes."""
        return None if self.memory_limit is None else as_bytes(self.memory_limit)


def _unlimited(value: object) -> object:
    return -1 if value == "unlimited" else value


Limit = Annotated[int, BeforeValidator(_unlimited), Field(ge=-1, le=2**62)]


class Ulimit(Model):
    """The two sides of a resource limit; -1 or ``unlimited`` for none. A bare number stands for both."""

    soft: Limit
    hard: Limit

    @model_validator(mode="before")
    @classmethod
    def _both(cls, value: object) -> object:
        bare = (isinstance(value, int) and not isinstance(value, bool)) or value == "unlimited"
        return {"soft": value, "hard": value} if bare else value

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.hard != -1 and (self.soft == -1 or self.soft > self.hard):
            raise misplaced("soft", f"must not be above the hard limit, {self.hard}")
        return self


RLIMITS: Mapping[str, int] = MappingProxyType(
    {name[7:].lower(): number for name, number in vars(resource).items() if name.startswith("RLIMIT_") and name != "RLIMIT_OFILE"}
)
"""The kernel's resource limits by their names in ``ulimits``: nofile, core, nproc …"""


def _known_ulimit(name: str) -> str:
    if name not in RLIMITS:
        raise ValueError(f"there is no resource limit {name[:40]!r}; there are {', '.join(sorted(RLIMITS))}")
    return name


Ulimits = dict[Annotated[str, AfterValidator(_known_ulimit)], Ulimit]
_MASK = re.compile(r"0?[0-7]{3}")


def _umask(text: str) -> str:
    if not _MASK.fullmatch(text):
        raise ValueError("must be three octal digits such as '0022'")
    return text


Umask = Annotated[str, AfterValidator(_umask)]


class EnvironmentFile(Model):
    """A file on the node with lines ``NAME=value``, read at each start; what it holds is never recorded. A bare path must exist."""

    path: AbsolutePath
    optional: bool = False

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value
