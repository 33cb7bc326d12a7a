"""Scripts: what is special about them. They run like binaries, from a file in the instance's folder."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from boreas_agent.spec import ScriptPkg

FILE = "script"
CHECK = "check"
TAIL_BYTES = 4096
_SHELL = "/bin/sh"


def text(pkg: ScriptPkg) -> str:
    """The content of the script's file."""
    if pkg.script is not None:
        return pkg.script
    return "\n".join(pkg.command) + "\n"


def files(pkg: ScriptPkg) -> Mapping[str, str]:
    """What lies in the instance's folder to be executed: names and contents."""
    return {FILE: text(pkg)} | ({CHECK: pkg.check} if pkg.check is not None else {})


def argv(pkg: ScriptPkg, file: str) -> tuple[str, ...]:
    """How the script is executed: lines under ``sh -e``; a text by its ``#!`` line, else by ``sh``."""
    if pkg.script is None:
        return (_SHELL, "-e", file, *pkg.args)
    return (*_interpreted(pkg.script, file), *pkg.args)


def check_argv(pkg: ScriptPkg, file: str) -> tuple[str, ...]:
    """How its check is executed, without the script's own parameters."""
    return _interpreted(pkg.check or "", file)


def _interpreted(content: str, file: str) -> tuple[str, ...]:
    return (file,) if content.startswith("#!") else (_SHELL, file)


def tail(logs: Sequence[tuple[Path, int, int | None]], limit: int = TAIL_BYTES) -> str:
    """The last of what a run wrote: of each log the part between two offsets (None: its end), together at most ``limit`` bytes.

    A short part leaves its room to the longer one.
    """
    parts = [_read(path, start, end, limit) for path, start, end in logs]
    share = limit // max(1, len(parts))
    spare = sum(max(0, share - len(part)) for part in parts)
    kept = [part[-(share + spare) :] if len(part) > share else part for part in parts]
    return "".join(part.decode("utf-8", "replace") for part in kept)


def _read(path: Path, start: int, end: int | None, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END) if end is None else end
            file.seek(max(start, end - limit))
            return file.read(max(0, min(end - start, limit))).lstrip(b"\0")
    except OSError:
        return b""
