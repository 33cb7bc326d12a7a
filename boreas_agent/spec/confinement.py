"""What a container sees of the node and may do to it, as users ask for it: Compose's names and value syntax."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, model_validator

from boreas_agent.spec.fields import LIST, MAX_ENTRIES, Model, MountPath, Plain, Text, misplaced, twice
from boreas_agent.spec.networking import EngineName, listed
from boreas_agent.spec.resources import as_bytes, number_as_text

# --- storage ---------------------------------------------------------------------------------------


class Volume(Model):
    """A folder or file of the node (``host_path``), or a volume of the engine (``name``), mounted into the container.

    The engine makes a volume that is not there yet; nobody but a person removes it.
    """

    host_path: MountPath | None = None
    name: EngineName | None = None
    container_path: MountPath
    read_only: bool = False

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        if self.host_path is None and self.name is None:
            raise misplaced("host_path", "is required; or give name, for a volume of the engine")
        if self.host_path is not None and self.name is not None:
            raise misplaced("name", "give either host_path or name (a volume of the engine), not both")
        return self

    @property
    def source(self) -> str:
        """What is mounted."""
        return str(self.host_path or self.name)


_TMPFS_OPTIONS = re.compile(r"[A-Za-z0-9_=,.%+-]*")


def _tmpfs(value: object) -> object:
    """``"/run:size=64m"`` and ``["/run:size=64m"]`` as the map ``{"/run": "size=64m"}``."""
    value = listed(value)
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        return value
    parts = [entry.partition(":") for entry in value]
    if (again := twice(path for path, _, _ in parts)) is not None:
        raise ValueError(f"{again[:200]} is given twice")
    return {path: options for path, _, options in parts}


def _tmpfs_options(options: str) -> str:
    if not _TMPFS_OPTIONS.fullmatch(options):
        raise ValueError("must be mount options such as 'size=64m,mode=1777'")
    return options


Tmpfs = Annotated[
    dict[MountPath, Annotated[Plain, AfterValidator(_tmpfs_options)]],
    Field(max_length=MAX_ENTRIES),
    BeforeValidator(_tmpfs, json_schema_input_type=dict[str, str] | list[str] | str),
]


def _size(value: object) -> int:
    """``67108864``, ``"64m"``, ``"64mb"`` and ``"64Mi"`` are the same: units are of 1024, as Compose has them."""
    text = number_as_text(value)
    size = as_bytes(text) if isinstance(text, str) else 0
    if not 0 < size < 2**63:
        raise ValueError("must be a size such as '64m' or '1g', or a number of bytes above 0")
    return size


Size = Annotated[int, PlainValidator(_size, json_schema_input_type=int | str)]


# --- limits ----------------------------------------------------------------------------------------

UlimitName = Literal[
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
]


_CAPABILITIES = re.compile(
    r"ALL|AUDIT_(CONTROL|READ|WRITE)|BLOCK_SUSPEND|BPF|CHECKPOINT_RESTORE|CHOWN|DAC_(OVERRIDE|READ_SEARCH)|FOWNER|FSETID|IPC_(LOCK|OWNER)"
    r"|KILL|LEASE|LINUX_IMMUTABLE|MAC_(ADMIN|OVERRIDE)|MKNOD|NET_(ADMIN|BIND_SERVICE|BROADCAST|RAW)|PERFMON|SETFCAP|SETGID|SETPCAP|SETUID"
    r"|SYSLOG|SYS_(ADMIN|BOOT|CHROOT|MODULE|NICE|PACCT|PTRACE|RAWIO|RESOURCE|TIME|TTY_CONFIG)|WAKE_ALARM"
)
"""https://man7.org/linux/man-pages/man7/capabilities.7.html, and ALL."""


def _capability(name: str) -> str:
    short = name.upper().removeprefix("CAP_")
    if not _CAPABILITIES.fullmatch(short):
        raise ValueError(f"{name[:64]!r} is not the name of a capability (for example NET_ADMIN, or ALL)")
    return short


Capabilities = Annotated[tuple[Annotated[Plain, AfterValidator(_capability)], ...], *LIST]


# --- devices ---------------------------------------------------------------------------------------

_RIGHTS = re.compile(r"(?!.*(.).*\1)[rwm]{1,3}")


def _device(text: str) -> str:
    """``/dev/x`` and ``/dev/x:rw`` as ``/dev/x:/dev/x:rwm`` and ``/dev/x:/dev/x:rw``."""
    host, *rest = text.split(":")
    inside = rest.pop(0) if rest and rest[0].startswith("/") else host
    rights = rest.pop(0) if rest else "rwm"
    if rest or not host.startswith("/") or not _RIGHTS.fullmatch(rights):
        raise ValueError("must be like '/dev/x', '/dev/x:/dev/y' or '/dev/x:/dev/y:rwm'")
    return f"{host}:{inside}:{rights}"


Devices = Annotated[tuple[Annotated[Plain, AfterValidator(_device)], ...], *LIST]


def _gpus(value: object) -> int | str | tuple[str, ...]:
    if value == "all" or (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 1024):
        return value
    ids = value if isinstance(value, list | tuple) else ()
    if not ids or len(ids) > MAX_ENTRIES or not all(isinstance(one, str) and one and one.isprintable() for one in ids):
        raise ValueError("must be 'all', a number of GPUs, or a list of their ids")
    if (again := twice(ids)) is not None:
        raise ValueError(f"{again[:200]!r} is given twice")
    return tuple(ids)


Gpus = Annotated[int | str | tuple[str, ...], PlainValidator(_gpus, json_schema_input_type=Literal["all"] | int | list[str])]


# --- labels ----------------------------------------------------------------------------------------

OURS = "boreas."


def _labels(value: object) -> object:
    """``["a=b"]`` as the map ``{"a": "b"}``."""
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        return value
    pairs = [entry.partition("=") for entry in value]
    if (again := twice(key for key, _, _ in pairs)) is not None:
        raise ValueError(f"{again[:200]} is given twice")
    return {key: text for key, _, text in pairs}


def _label(key: str) -> str:
    if not key:
        raise ValueError("the name of a label must not be empty")
    if key.startswith(OURS):
        raise ValueError(f"labels that begin with {OURS} are the agent's own; choose another name")
    return key


Labels = Annotated[
    dict[Annotated[Plain, AfterValidator(_label)], Text],
    Field(max_length=MAX_ENTRIES),
    BeforeValidator(_labels, json_schema_input_type=dict[str, str] | list[str]),
]
