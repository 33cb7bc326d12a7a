"""The kinds of values that fields of a spec hold, and what is wrong with the ones that are none.

Every text is checked before anything is done with it: NUL ends a string for the kernel, control characters in a
name or a path deceive whoever reads it in a terminal, and a colon in a mount means something else to the engine.
"""

from __future__ import annotations

import re
import signal as signals
from collections.abc import Iterable
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, FailFast, Field
from pydantic_core import PydanticCustomError

MAX_ENTRIES = 2048
"""Of any one list; objects are bounded alike where JSON is read."""


class Model(BaseModel):
    """Base of the spec's models: nothing unknown, nothing coerced, nothing changed later."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def misplaced(field: str, message: str) -> PydanticCustomError:
    """A fault that only the whole object can show, said of the field that the user would change."""
    return PydanticCustomError("misplaced", "{message}", {"message": message, "field": field})


def twice(names: Iterable[str]) -> str | None:
    """The first that has been there before."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def _no_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not contain NUL")
    return text


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def _plain(text: str) -> str:
    """No control characters at all: for names, keys and paths."""
    if _CONTROL.search(text):
        raise ValueError("must not contain control characters")
    return text


def _absolute(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError(f"must be an absolute path, not {path!r}")
    return path


def _bindable(path: str) -> str:
    if ":" in path:
        raise ValueError("must not contain a colon")
    return path


def _signal_name(name: str) -> str:
    full = name.upper() if name.upper().startswith("SIG") else f"SIG{name.upper()}"
    if full not in signals.Signals.__members__:
        raise ValueError(f"{name!r} is not the name of a signal (for example SIGTERM)")
    return full


def _env_key(key: str) -> str:
    if not key or "=" in key:
        raise ValueError("an environment name must not be empty or contain '='")
    return key


_REFERENCE = re.compile(
    r"(?:(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:]+\])(?::[0-9]+)?/)?"  # registry
    r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*"  # name
    r"(?::\w[\w.-]{0,127})?(?:@[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,})?",  # tag, digest
    re.ASCII,
)
"""The grammar of https://pkg.go.dev/github.com/distribution/reference, which every engine applies."""


def _image_reference(text: str) -> str:
    if not _REFERENCE.fullmatch(text):
        raise ValueError("must be an image reference such as 'nginx:1.27' or 'registry.example.com/team/app@sha256:…'")
    return text


def _user_name(text: str) -> str:
    if not re.fullmatch(r"[^:\s]{1,64}(:[^:\s]{1,64})?", text):
        raise ValueError("must be a user or user:group, by name or number")
    if any(part.isdecimal() and int(part) >= 2**32 - 1 for part in text.split(":")):
        raise ValueError("a user or group number must be below 4294967295")
    return text


def _digits(value: object) -> object:
    """``user: 1000`` is as good as ``user: "1000"``."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**32 else value


APP_PATTERN = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}"
APP_RULE = "must be 1 to 63 of the characters A-Z a-z 0-9 _ . - of which the first is a letter or a digit"
_APP = re.compile(APP_PATTERN)


def _app_name(text: str) -> str:
    if not _APP.fullmatch(text):
        raise ValueError(APP_RULE)
    return text


AppName = Annotated[str, AfterValidator(_app_name)]
Text = Annotated[str, AfterValidator(_no_nul)]
Plain = Annotated[str, AfterValidator(_plain)]
AbsolutePath = Annotated[Plain, AfterValidator(_absolute)]
MountPath = Annotated[AbsolutePath, AfterValidator(_bindable)]
SignalName = Annotated[str, AfterValidator(_signal_name)]
Seconds = Annotated[float, Field(ge=0, le=10 * 365 * 86400, allow_inf_nan=False)]
PortNumber = Annotated[int, Field(ge=1, le=65535)]
EnvKey = Annotated[Plain, AfterValidator(_env_key)]
User = Annotated[Plain, BeforeValidator(_digits), AfterValidator(_user_name)]
ImageReference = Annotated[Plain, Field(max_length=1024), AfterValidator(_image_reference)]
LIST = (Field(strict=False, max_length=MAX_ENTRIES), FailFast())
"""Not strict, so that a tuple takes a JSON list (its items are). One wrong item is named, not all: describing a
hundred thousand of them would hold up everybody else for seconds."""
Words = Annotated[tuple[Text, ...], *LIST]
