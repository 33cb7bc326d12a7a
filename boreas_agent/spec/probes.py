"""What users ask for under ``health``: probes, with Kubernetes' names and semantics.

A number that is left out stays None here and is the agent's to choose when it probes (``agent.health``): the
canonical form of a spec must not depend on the settings of the agent that reads it.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from boreas_agent.spec.fields import Model, PortNumber, Seconds, Words, misplaced

ProbeKind = Literal["startup", "readiness", "liveness"]

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,256}")
_VALUE = re.compile(r"[\x20-\x7e\t]{0,4096}")
_PATH = re.compile(r"/[\x21-\x7e]{0,4095}")
_OURS = frozenset({"connection", "content-length", "transfer-encoding"})


def _http_path(path: str) -> str:
    if not _PATH.fullmatch(path):
        raise ValueError("must begin with / and hold printable ASCII without spaces; write other characters as %XX")
    return path


def _header_name(name: str) -> str:
    if not _TOKEN.fullmatch(name) or name.lower() in _OURS:
        raise ValueError("must be the name of an HTTP header, and none of Connection, Content-Length, Transfer-Encoding")
    return name


def _header_value(value: str) -> str:
    if not _VALUE.fullmatch(value):
        raise ValueError("must be printable ASCII on one line")
    return value


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


_RANGE = re.compile(r"([1-5][0-9]{2})(?:\s*-\s*([1-5][0-9]{2}))?|([1-5])xx", re.IGNORECASE)


def _status_range(value: object) -> object:
    """``204``, ``"204"``, ``"200-299"``, ``"2xx"`` and ``{"min": 200, "max": 299}`` in the one form that is kept."""
    if isinstance(value, dict) and value.keys() == {"min", "max"}:
        value = f"{value['min']}-{value['max']}"
    found = _RANGE.fullmatch(str(value)) if isinstance(value, int | str) and not isinstance(value, bool) else None
    if found is None:
        raise ValueError("must be an HTTP status or a range of them such as '200-399'")
    low, high, hundred = found.groups()
    low, high = (f"{hundred}00", f"{hundred}99") if hundred else (low, high or low)
    if low > high:
        raise ValueError(f"the range {low}-{high} is empty: the lower status comes first")
    return low if low == high else f"{low}-{high}"


class HttpCheck(Model):
    """GET answers with an expected status. Redirects are not followed, certificates not verified."""

    port: PortNumber
    path: Annotated[str, AfterValidator(_http_path)] = "/"
    scheme: Annotated[Literal["http", "https"], BeforeValidator(_lower)] = "http"
    headers: dict[Annotated[str, AfterValidator(_header_name)], Annotated[str, AfterValidator(_header_value)]] = Field(default_factory=dict)
    expected_status: Annotated[str, BeforeValidator(_status_range)] = "200-399"

    def expects(self, status: int) -> bool:
        """Whether an answer with this status is a good one."""
        low, _, high = self.expected_status.partition("-")
        return int(low) <= status <= int(high or low)


class TcpCheck(Model):
    """The port takes a connection."""

    port: PortNumber


class ExecCheck(Model):
    """The command, run beside the instance (in its container, or in its process's environment), exits with 0."""

    command: Annotated[Words, Field(min_length=1)]

    @model_validator(mode="after")
    def _has_program(self) -> Self:
        if not self.command[0]:
            raise misplaced("command[0]", "the program must not be empty")
        return self


Threshold = Annotated[int, Field(ge=1, le=1_000_000)]


def given(data: object, known: Container[str]) -> object:
    """Without what is empty or null: for a field that is known, that means 'not given'."""
    if not isinstance(data, dict):
        return data
    return {key: value for key, value in data.items() if value not in ([], {}, None) or key not in known}


class Probe(Model):
    """One of ``http``, ``tcp`` and ``exec``, and how often it is asked. None: as the agent's settings say."""

    http: HttpCheck | None = None
    tcp: TcpCheck | None = None
    exec: ExecCheck | None = None
    initial_delay_seconds: Seconds = 0.0
    interval_seconds: Annotated[float, Field(ge=0.1, le=86400, allow_inf_nan=False)] | None = None
    timeout_seconds: Annotated[float, Field(ge=0.01, le=3600, allow_inf_nan=False)] | None = None
    failure_threshold: Threshold | None = None
    success_threshold: Threshold = 1

    @model_validator(mode="before")
    @classmethod
    def _without_empty(cls, data: object) -> object:
        return given(data, cls.model_fields)

    @model_validator(mode="after")
    def _asks_one_thing(self) -> Self:
        given = [name for name in ("http", "tcp", "exec") if getattr(self, name) is not None]
        if len(given) != 1:
            raise misplaced(given[1] if given else "http", "give one of http, tcp and exec" + (", not both" if given else ""))
        return self

    @property
    def check(self) -> HttpCheck | TcpCheck | ExecCheck:
        """What it asks."""
        check = self.http or self.tcp or self.exec
        assert check is not None
        return check


class HealthSpec(Model):
    """``startup`` holds the others back until it has passed; ``liveness`` and ``startup`` restart, ``readiness`` does not."""

    startup: Probe | None = None
    readiness: Probe | None = None
    liveness: Probe | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_empty(cls, data: object) -> object:
        return given(data, cls.model_fields)

    @model_validator(mode="after")
    def _one_success_is_enough(self) -> Self:
        for kind in ("startup", "liveness"):
            probe: Probe | None = getattr(self, kind)
            if probe is not None and probe.success_threshold != 1:
                raise misplaced(f"{kind}.success_threshold", f"must be 1 for a {kind} probe")
        return self

    @property
    def probes(self) -> Mapping[ProbeKind, Probe]:
        """The probes that are given, by kind."""
        found: dict[ProbeKind, Probe | None] = {"startup": self.startup, "readiness": self.readiness, "liveness": self.liveness}
        return {kind: probe for kind, probe in found.items() if probe is not None}

    @property
    def has_headers(self) -> bool:
        """Whether there is anything that :func:`masked_headers` hides."""
        return any(probe.http is not None and probe.http.headers for probe in self.probes.values())


def masked_headers(canonical: Mapping[str, Any]) -> dict[str, Any]:
    """The canonical form of a :class:`HealthSpec` as people may see it: a header's value may be a token."""
    shown: dict[str, Any] = {}
    for kind, probe in canonical.items():
        http = probe.get("http", {})
        hidden = {"http": http | {"headers": dict.fromkeys(http["headers"], "***")}} if http.get("headers") else {}
        shown[kind] = probe | hidden
    return shown
