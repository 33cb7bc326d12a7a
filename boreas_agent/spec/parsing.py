"""From the decoded body of a request to a checked value, or to every fault that it has, in the words of the sender."""

from __future__ import annotations

import re
from typing import Annotated

from msgspec import Struct
from pydantic import Field, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from boreas_agent.errors import FieldError, Invalid
from boreas_agent.spec.docker import DockerPkg
from boreas_agent.spec.fields import APP_PATTERN, APP_RULE
from boreas_agent.spec.hashes import spec_hash
from boreas_agent.spec.pkg import Pkg
from boreas_agent.spec.processes import BinaryPkg, ScriptPkg

_PKG: TypeAdapter[Pkg] = TypeAdapter(Annotated[Pkg, Field(discriminator="type")])
_KNOWN = {name for model in (DockerPkg, BinaryPkg, ScriptPkg) for name in model.model_fields}


class Submission(Struct, frozen=True):
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
    faults.append(FieldError("app", "is required" if value is None else APP_RULE))
    return ""


_APP = re.compile(APP_PATTERN)


def _checked_version(value: object, faults: list[FieldError]) -> str:
    if isinstance(value, str) and 1 <= len(value) <= 128 and value.isprintable():
        return value
    wrong = "must be 1 to 128 printable characters"
    if isinstance(value, int | float) and not isinstance(value, bool):
        wrong = "must be a string, not a number (in YAML: put it in quotes)"
    faults.append(FieldError("version", "is required" if value is None else wrong))
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
    try:
        pkg = _PKG.validate_python(given)
    except ValidationError as error:
        faults += faults_of(error, name, given.get("type"))
        return None
    return pkg


UNKNOWN = "unknown field"
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
    "too_short": "must not be empty",
}


def faults_of(error: ValidationError, name: str, kind: object = None) -> list[FieldError]:
    """What pydantic found, by the paths and in the words of the sender; ``kind`` is the type of a pkg."""
    found = error.errors(include_url=False, include_input=False)
    # A list stops at its first wrong item and then seems too short; that is no second fault.
    wrong = {e["loc"][:-1] for e in found}
    return [_fault(e, name, kind) for e in found if e["type"] != "too_short" or e["loc"] not in wrong]


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
    if error["type"] == "too_long":
        unit = "characters" if error["ctx"]["field_type"] == "Value" else "entries"
        return FieldError(path, f"must not have more than {error['ctx']['max_length']} {unit}")
    said = error["msg"].removeprefix("Value error, ")
    said = said.replace("Input should be", "must be")
    return FieldError(path, _MESSAGES.get(error["type"], said))
