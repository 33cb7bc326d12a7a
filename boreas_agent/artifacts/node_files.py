"""Files of the node that specs may name: only below certain folders, and never by way of a link."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from boreas_agent.errors import Terminal

MOST_HEADER_BYTES = 64 * 1024


def open_below(roots: Sequence[str], path: str, setting: str) -> int:
    """A descriptor of the regular file at ``path``. Raises Terminal where it is outside, behind a link or no such file, and OSError."""
    wanted = Path(path)
    root = next((Path(root) for root in roots if wanted.is_relative_to(root) and wanted != Path(root)), None)
    if root is None or ".." in wanted.parts:
        allowed = f"only files below {', '.join(roots)}" if roots else "no files"
        raise Terminal(f"{path} may not be read: {setting} allows {allowed}")
    here = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        *folders, name = wanted.relative_to(root).parts
        for folder in folders:
            inner = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            os.close(here)
            here = inner
        # Not blocking, or a pipe without a writer would hold the thread for ever.
        found = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=here)
    except NotADirectoryError:
        raise Terminal(f"{path} may not be read: a part of it is a link or no folder") from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Terminal(f"{path} may not be read: it is a link") from None
        raise
    finally:
        os.close(here)
    if not stat.S_ISREG(os.fstat(found).st_mode):
        os.close(found)
        raise Terminal(f"{path} may not be read: it is not a file")
    return found


def read_file(path: str, most_bytes: int) -> bytes:
    """The content of a regular file. Raises ValueError where it is none or is larger, with words that follow its path, and OSError."""
    # Not blocking, or a pipe without a writer would hold the thread for ever.
    found = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(found).st_mode):
        os.close(found)
        raise ValueError("is not a file")
    with os.fdopen(found, "rb") as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise ValueError(f"is larger than {most_bytes} bytes")
    return content


def read_headers(roots: Sequence[str], path: str) -> dict[str, str]:
    """The lines ``Name: value`` of the file. Its content is a secret: no message repeats any of it. Raises Terminal, OSError."""
    with open(open_below(roots, path, "agent.artifacts.header_roots"), encoding="utf-8", errors="replace") as file:
        status = os.fstat(file.fileno())
        if status.st_uid not in {0, os.geteuid()} or status.st_mode & 0o022:
            raise Terminal(f"{path} may not be read: it must belong to root, and nobody else may write to it")
        lines = file.read(MOST_HEADER_BYTES).splitlines()
    headers = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, value = line.partition(":")
        if not colon or not _TOKEN.issuperset(name) or not name or not value.strip().isprintable():
            raise Terminal(f"line {number} of {path} is not of the form 'Name: value'")
        headers[name] = value.strip()
    return headers


_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
