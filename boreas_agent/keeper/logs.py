"""Bounds what apps write. The apps hold their log files open themselves, so nobody can make them change files."""

from __future__ import annotations

import contextlib
import os

from boreas_agent.keeper.kernel import punch

_BLOCK = 4096


def bound(path: str, limit: int) -> tuple[bool, int]:
    """Whether the log had to be cut, and its size (0 where it is gone); one system call where there is nothing to do.

    Of a log that takes more than ``limit`` bytes of disk, all but the newest half of that is cut. It is punched out:
    offsets and the writers' positions stay valid, and no line is lost that was not to go. Where the file system cannot
    do that, the rest is copied and the file truncated.
    """
    with contextlib.suppress(OSError):
        seen = os.stat(path)
        if seen.st_blocks * 512 <= limit:
            return False, seen.st_size
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
        try:
            _cut(fd, limit // 2)
        finally:
            os.close(fd)
        return True, seen.st_size
    return False, 0


def _cut(fd: int, keep: int) -> None:
    start = os.fstat(fd).st_size - keep
    if start >= _BLOCK and not punch(fd, start // _BLOCK * _BLOCK):
        rest = os.pread(fd, keep, start)
        os.ftruncate(fd, 0)
        os.write(fd, rest)


def size_of(path: str) -> int:
    """The size of a log, 0 where it is gone."""
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
