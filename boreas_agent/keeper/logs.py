"""Bounds what apps write, and notes when. The apps hold their log files open themselves, so nobody can make them change files."""

from __future__ import annotations

import contextlib
import os
import struct
import time

from boreas_agent.keeper.kernel import collapse, inotify, punch, tell_no_more, tell_of_writing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_BLOCK = 4096
_FAR = 1 << 40
"""A file has at most 16 TiB on some file systems, holes included: long before that its start is taken out, and offsets begin anew."""
_NOTE = struct.Struct("<qd")
_MOST_NOTES = 1 << 16
_EVENT = struct.Struct("iIII")  # struct inotify_event: number, mask, cookie, and the length of a name that follows, which files have not
_READ = 64 * 1024


class Quiet:
    """Logs that nobody writes to: the kernel tells of the next time, so that they need not be looked at."""

    def __init__(self) -> None:
        self.fd = inotify()
        """To be selected for reading; -1: the kernel cannot tell, and nothing is ever quiet."""
        self._numbers: dict[str, int] = {}
        self._paths: dict[int, str] = {}

    def __contains__(self, path: str) -> bool:
        return path in self._numbers

    def add(self, path: str) -> bool:
        """Whether the kernel will tell; from now on, so whoever asks looks once more."""
        number = tell_of_writing(self.fd, path) if self.fd >= 0 else -1
        if number < 0 or number in self._paths:  # another name of one that is quiet already
            return False
        self._numbers[path], self._paths[number] = number, path
        return True

    def discard(self, path: str) -> None:
        """It is looked at, or forgotten."""
        number = self._numbers.pop(path, None)
        if number is not None:
            del self._paths[number]
            tell_no_more(self.fd, number)

    def ended(self) -> Iterator[str]:
        """Those that are quiet no more."""
        with contextlib.suppress(BlockingIOError):
            for number, *_ in _EVENT.iter_unpack(os.read(self.fd, _READ // _EVENT.size * _EVENT.size)):
                for ended in [number] if number >= 0 else list(self._paths):  # else some were dropped, and nobody knows whose
                    path = self._paths.pop(ended, None)
                    if path is not None:
                        del self._numbers[path]
                        yield path


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
            anew = _cut(fd, limit // 2)
        finally:
            os.close(fd)
        if anew:
            os.unlink(notes_of(path))
            return True, size_of(path)
        return True, seen.st_size
    return False, 0


def _cut(fd: int, keep: int) -> bool:
    """Whether offsets begin anew."""
    size = os.fstat(fd).st_size
    start = (size - keep) // _BLOCK * _BLOCK
    if start <= 0:
        return False
    if punch(fd, start):
        return size > _FAR and collapse(fd, start)
    rest = os.pread(fd, size - start, start)
    os.ftruncate(fd, 0)
    os.write(fd, rest)
    return True


def notes_of(path: str) -> str:
    """Where it is noted when a log had which size: pairs of offset (int64) and wall-clock time (float64), little-endian, in order."""
    return f"{path[:-4]}.times"


def note(path: str, size: int) -> None:
    """Everything before ``size`` has been there by now. Of many notes the older half is dropped."""
    notes = notes_of(path)
    with contextlib.suppress(OSError):
        fd = os.open(notes, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            os.write(fd, _NOTE.pack(size, time.time()))
            if os.fstat(fd).st_size >= _MOST_NOTES * _NOTE.size:
                _halve(fd, notes)
        finally:
            os.close(fd)


def _halve(fd: int, notes: str) -> None:
    half = _MOST_NOTES // 2 * _NOTE.size
    draft = os.open(f"{notes}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        os.write(draft, os.pread(fd, half, half))
    finally:
        os.close(draft)
    os.rename(f"{notes}.new", notes)


def size_of(path: str) -> int:
    """The size of a log, 0 where it is gone."""
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
