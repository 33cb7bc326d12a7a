"""Bounds what apps write. The apps hold their log files open themselves, so nobody can make them change files."""

from __future__ import annotations

import contextlib
import os

from boreas_agent.keeper.kernel import punch

_BLOCK = 4096


def bound(path: str, limit: int) -> bool:
    """Cut the oldest part off a log that takes more than ``limit`` bytes of disk, keeping the newest half of that.

    The part is punched out: offsets and the writers' positions stay valid, and no line is lost that was not
    to go. Where the file system cannot do that, the rest is copied and the file truncated. True where it was cut.
    """
    with contextlib.suppress(OSError):
        if os.stat(path).st_blocks * 512 > limit:
            fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
            try:
                _cut(fd, limit // 2)
            finally:
                os.close(fd)
            return True
    return False


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
