"""Writes the files of a spec. All of it blocks, so it runs in threads."""

from __future__ import annotations

import os
from pathlib import Path

from boreas_agent.artifacts.node_files import read_file
from boreas_agent.errors import Missing
from boreas_agent.spec import ConfigFile

MOST_BYTES = 1024 * 1024
"""Of a file of the node that is named in ``content_from``."""


def write(target: Path, file: ConfigFile, owner: tuple[int, int] | None, written: Path | None = None) -> None:
    """Make ``target``, which must not exist, durable but for its name. ``owner``: user and group, the agent's without it.

    ``written``: where it was written before, with the content that it is to have again. Raises Missing where the file of the node
    that it is made from cannot be read, OSError.
    """
    if written is not None:
        content = written.read_bytes()
    else:
        content = (file.content or "").encode() if file.content_from is None else _read(file.content_from)
    made = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(made, "wb") as opened:
        opened.write(content)
        opened.flush()
        if owner is not None:
            os.fchown(made, *owner)
        os.fchmod(made, int(file.mode, 8))
        os.fsync(made)


def _read(path: str) -> bytes:
    """No message repeats any of it."""
    try:
        return read_file(path, MOST_BYTES)
    except FileNotFoundError as error:
        raise Missing(f"content_from: {path} does not exist; create it on this node") from error
    except OSError as error:
        raise Missing(f"content_from: cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise Missing(f"content_from: {path} {error}") from error
