"""What users ask for: the models of ``pkg``, their canonical form, and the hashes made from it.

These models are the contract (section 3): they validate requests, and OpenAPI is made from them. An
unknown field is an error. "Not given" and "given with its default" mean the same, so the canonical form
leaves defaults out; a later version with new defaulted fields therefore computes the same hashes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import AliasChoices, Field, TypeAdapter, ValidationError, model_validator
from pydantic_core import ErrorDetails

from boreas_agent.errors import FieldError, Invalid
from boreas_agent.fields import (
    LIST,
    MAX_ENTRIES,
    AbsolutePath,
    EnvKey,
    ImageReference,
    Model,
    MountPath,
    PortNumber,
    Seconds,
    SignalName,
    Text,
    User,
    Words,
    misplaced,
)
from boreas_agent.probe_spec import HealthSpec, masked_headers

MAX_REPLICAS = 1000
APP_PATTERN = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}"
UNBUILT: Mapping[str, frozenset[str]] = {
    "docker": frozenset({"resources"}),
    "binary": frozenset({"resources", "artifacts"}),
    "script": frozenset({"resources", "artifacts", "check", "schedule", "timeout_seconds", "check_interval_seconds"}),
}
"""Fields of the contract that this version refuses by name instead of ignoring them."""
UNBUILT_ROLLOUT = frozenset({"progress_deadline_seconds", "watch_seconds", "auto_rollback", "max_unavailable", "max_surge"})


class Volume(Model):
    """A folder or file of the node, mounted into the container."""

    host_path: MountPath
    container_path: MountPath
    read_only: bool = False


class Port(Model):
    """A port of the node that leads to a port of the container. ``host`` and ``container`` are accepted names."""

    host_port: PortNumber = Field(validation_alias=AliasChoices("host_port", "host"))
    container_port: PortNumber = Field(validation_alias=AliasChoices("container_port", "container"))
    protocol: Literal["tcp", "udp"] = "tcp"


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


class Rollout(Model):
    """How a new revision takes the place of the old one."""

    strategy: Literal["recreate"] = "recreate"
    min_healthy_seconds: Seconds = 10.0


class StopPolicy(Model):
    """How an instance is ended: the signal, then SIGKILL after the grace."""

    signal: SignalName = "SIGTERM"
    grace_seconds: Annotated[float, Field(ge=0, le=86400, allow_inf_nan=False)] = 10.0


class _Common(Model):
    args: Words = ()
    environment: dict[EnvKey, Text] = Field(default_factory=dict)
    replicas: Annotated[int, Field(ge=0, le=MAX_REPLICAS)] = 1
    working_dir: AbsolutePath | None = None
    user: User | None = None
    restart: Restart = Restart()
    health: HealthSpec = HealthSpec()
    rollout: Rollout = Rollout()
    stop: StopPolicy = StopPolicy()

    @cached_property
    def canonical_form(self) -> dict[str, Any]:
        """See :func:`canonical`; made once for all its uses."""
        return self.model_dump(mode="json", exclude_defaults=True)

    @cached_property
    def canonical_text(self) -> str:
        """The canonical form as JSON with sorted keys: what every hash and record of a revision is made from."""
        return _SORTED(self.canonical_form)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """As pydantic's, but the copy does not inherit the canonical form of what it was copied from."""
        copied = super().model_copy(update=update, deep=deep)
        copied.__dict__.pop("canonical_form", None)
        copied.__dict__.pop("canonical_text", None)
        return copied


class DockerPkg(_Common):
    """A container. ``command`` replaces the image's ENTRYPOINT, ``args`` its CMD."""

    type: Literal["docker"]
    image: ImageReference
    command: Words = ()
    volumes: Annotated[tuple[Volume, ...], *LIST] = ()
    ports: Annotated[tuple[Port, ...], *LIST] = ()

    @model_validator(mode="after")
    def _mounts_and_ports_fit(self) -> Self:
        mounted: set[str] = set()
        for index, volume in enumerate(self.volumes):
            if volume.container_path in mounted:
                raise misplaced(f"volumes[{index}].container_path", f"{volume.container_path} is mounted twice")
            mounted.add(volume.container_path)
        taken: set[tuple[int, str]] = set()
        for index, port in enumerate(self.ports):
            if (port.host_port, port.protocol) in taken:
                raise misplaced(f"ports[{index}].host_port", f"host port {port.host_port}/{port.protocol} is given twice")
            taken.add((port.host_port, port.protocol))
        if taken and self.replicas > 1:
            raise misplaced("replicas", f"{self.replicas} replicas cannot share fixed host ports; use one replica or no ports")
        return self


class BinaryPkg(_Common):
    """A program. ``command`` is the program (absolute, or relative to the release folder) and its first arguments."""

    type: Literal["binary"]
    command: Annotated[Words, Field(min_length=1)]

    @model_validator(mode="after")
    def _has_program(self) -> Self:
        program = self.command[0]
        if not program:
            raise misplaced("command[0]", "the program must not be empty")
        if not program.startswith("/") and ".." in program.split("/"):
            raise misplaced("command[0]", f"the program must be absolute or inside the release folder, not {program[:200]!r}")
        return self


class ScriptPkg(_Common):
    """A shell script, run once for each revision: the lines of ``command``, or ``script`` as one text."""

    type: Literal["script"]
    command: Words = ()
    script: Annotated[Text, Field(min_length=1)] | None = None
    replicas: Annotated[int, Field(ge=0, le=1)] = 1

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if bool(self.command) == (self.script is not None):
            raise misplaced("script", "give either command (the lines) or script (the text), one of them")
        if self.restart.policy == "always":
            raise misplaced("restart.policy", "'always' is not for scripts; use type binary for what should run for ever")
        return self


Pkg = DockerPkg | BinaryPkg | ScriptPkg
_PKG: TypeAdapter[Pkg] = TypeAdapter(Annotated[Pkg, Field(discriminator="type")])
_KNOWN = {name for model in (DockerPkg, BinaryPkg, ScriptPkg) for name in model.model_fields} | {
    name for names in UNBUILT.values() for name in names
}


@dataclass(frozen=True, slots=True)
class Submission:
    """A valid apply request."""

    app: str
    version: str
    pkg: Pkg
    force: bool
    spec_hash: str


_SUBMISSION = frozenset({"app", "version", "pkg", "package", "force"})


def parse_submission(data: object) -> Submission:
    """Validate the decoded body of ``POST /v1/apply``; raises Invalid with every fault that was found."""
    if not isinstance(data, dict):
        raise Invalid((FieldError("", "the body must be a JSON object with app, version and pkg"),))
    faults = [FieldError(key, UNKNOWN) for key in data if key not in _SUBMISSION]
    app = checked_app(data.get("app"), faults)
    version = _checked_version(data.get("version"), faults)
    force = data.get("force", False)
    if not isinstance(force, bool):
        faults.append(FieldError("force", "must be true or false"))
    if "pkg" in data and "package" in data:
        faults.append(FieldError("package", "is another name for pkg; give one of them"))
    name = "package" if "package" in data else "pkg"
    pkg = _checked_pkg(data.get(name), name, faults)
    if faults or pkg is None:
        raise Invalid(tuple(faults))
    return Submission(app, version, pkg, bool(force), spec_hash(version, pkg))


def checked_app(value: object, faults: list[FieldError]) -> str:
    """``value`` as an app name; otherwise a fault is added and the empty string returned."""
    if isinstance(value, str) and _APP.fullmatch(value):
        return value
    rule = "1 to 63 of the characters A-Z a-z 0-9 _ . - of which the first is a letter or a digit"
    faults.append(FieldError("app", "is required" if value is None else f"must be {rule}"))
    return ""


_APP = re.compile(APP_PATTERN)


def _checked_version(value: object, faults: list[FieldError]) -> str:
    if isinstance(value, str) and 1 <= len(value) <= 128 and value.isprintable():
        return value
    faults.append(FieldError("version", "is required" if value is None else "must be 1 to 128 printable characters"))
    return ""


def parse_pkg(data: object) -> Pkg:
    """Validate a stored or carried pkg; raises Invalid."""
    faults: list[FieldError] = []
    pkg = _checked_pkg(data, "pkg", faults)
    if pkg is None:
        raise Invalid(tuple(faults))
    return pkg


_EMPTY: tuple[object, ...] = ([], {}, None)
"""Empty lists and maps, and null, mean 'not given': the platform's controller sends every list it knows of."""


def _checked_pkg(data: object, name: str, faults: list[FieldError]) -> Pkg | None:
    if not isinstance(data, dict):
        faults.append(FieldError(name, "is required" if data is None else "must be an object with a type"))
        return None
    given = {key: value for key, value in data.items() if value not in _EMPTY or key not in _KNOWN}
    before = len(faults)
    _drop_unbuilt(given, name, faults)
    try:
        pkg = _PKG.validate_python(given)
    except ValidationError as error:
        faults += faults_of(error, name, given.get("type"))
        return None
    return pkg if len(faults) == before else None


def _drop_unbuilt(given: dict[str, Any], name: str, faults: list[FieldError]) -> None:
    """Moves what this version cannot do from ``given`` to ``faults``, so that everything else is still checked."""
    kind = given.get("type")
    unbuilt = UNBUILT.get(kind, _NOTHING) if isinstance(kind, str) else _NOTHING
    if not unbuilt.isdisjoint(given):
        for key in sorted(unbuilt & given.keys()):
            faults.append(FieldError(f"{name}.{key}", NOT_YET))
            del given[key]
    rollout = given.get("rollout")
    if isinstance(rollout, dict):
        for key in sorted(UNBUILT_ROLLOUT & rollout.keys()):
            faults.append(FieldError(f"{name}.rollout.{key}", NOT_YET))
        given["rollout"] = {key: value for key, value in rollout.items() if key not in UNBUILT_ROLLOUT}
        if rollout.get("strategy") == "start-first":
            faults.append(FieldError(f"{name}.rollout.strategy", f"'start-first' {NOT_YET}; use 'recreate'"))
            del given["rollout"]["strategy"]


_NOTHING: frozenset[str] = frozenset()
UNKNOWN = "unknown field"
NOT_YET = "is not supported by this version of the agent yet"
_MESSAGES = {
    "extra_forbidden": UNKNOWN,
    "missing": "is required",
    "model_type": "must be an object",
    "dict_type": "must be an object",
    "tuple_type": "must be a list",
    "string_type": "must be a string",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "string_too_short": "must not be empty",
    "too_long": f"must not have more than {MAX_ENTRIES} entries",
}


def faults_of(error: ValidationError, name: str, kind: object = None) -> list[FieldError]:
    """What pydantic found, by the paths and in the words of the sender; ``kind`` is the type of a pkg."""
    return [_fault(e, name, kind) for e in error.errors(include_url=False, include_input=False)]


def _fault(error: ErrorDetails, name: str, kind: object) -> FieldError:
    parts = [part for index, part in enumerate(error["loc"]) if part != "[key]" and not (index == 0 and part == kind)]
    path = name
    for part in parts:
        path += f"[{part}]" if isinstance(part, int) else f".{part[:200]}"
    path = path.removeprefix(".")
    if error["type"].startswith("union_tag"):
        return FieldError(f"{name}.type", "is required and must be one of docker, binary, script")
    if error["type"] == "misplaced":
        return FieldError(f"{path}.{error['ctx']['field']}", error["msg"])
    if error["type"] == "extra_forbidden" and len(parts) == 1 and parts[0] in _KNOWN:
        return FieldError(path, f"{kind} apps have no such field")
    said = error["msg"].removeprefix("Value error, ")
    said = said.replace("Input should be", "must be").replace("String should have", "must have").replace("Tuple should have", "must have")
    return FieldError(path, _MESSAGES.get(error["type"], said))


# --- canonical form ------------------------------------------------------------------------------

_SORTED = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode
_NOT_THE_INSTANCE = frozenset({"replicas", "restart", "health", "rollout", "stop"})
"""Fields that say how the agent treats instances, not what they are made of: changing them replaces nothing."""


def canonical(pkg: Pkg) -> dict[str, Any]:
    """The pkg as JSON values, with everything left out that equals its default. The inner values are shared: only for reading."""
    return dict(pkg.canonical_form)


def masked(pkg: Pkg) -> dict[str, Any]:
    """The canonical form as people may see it: values of the environment and of probes' headers are secrets."""
    data = canonical(pkg)
    if data.get("environment"):
        data["environment"] = dict.fromkeys(data["environment"], "***")
    if pkg.health.has_headers:
        data["health"] = masked_headers(data["health"])
    return data


def masked_text(pkg: Pkg) -> str:
    """:func:`masked` as JSON."""
    return _SORTED(masked(pkg)) if pkg.environment or pkg.health.has_headers else pkg.canonical_text


def spec_hash(version: str, pkg: Pkg) -> str:
    """Identifies the request: equal hashes are the same desired state."""
    return _digest(f'{{"pkg":{pkg.canonical_text},"version":{_SORTED(version)}}}')


def instance_hash(version: str, pkg: Pkg, generation: int, revision: int) -> str:
    """Identifies what an instance is made of.

    ``generation`` is the revision that last asked for everything to be replaced (restart, force). A script
    runs once a revision, so its revision is part of it.
    """
    generation = revision if pkg.type == "script" else generation
    return _digest(f'{{"generation":{generation},"pkg":{_made_of(pkg)},"version":{_SORTED(version)}}}')


def _made_of(pkg: Pkg) -> str:
    if _NOT_THE_INSTANCE.isdisjoint(pkg.canonical_form):
        return pkg.canonical_text
    return _SORTED({key: value for key, value in pkg.canonical_form.items() if key not in _NOT_THE_INSTANCE})


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def restart_policy(pkg: Pkg) -> Literal["always", "on-failure", "never"]:
    """The policy in force: ``always`` by default, ``on-failure`` for scripts."""
    return pkg.restart.policy or ("on-failure" if pkg.type == "script" else "always")


def max_attempts(pkg: Pkg) -> int | None:
    """How often a failed instance is started in a row at most; None = without limit."""
    return pkg.restart.max_attempts or (3 if pkg.type == "script" else None)
