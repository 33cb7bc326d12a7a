"""What is made from files and made anew when they change: certificates and tokens, renewed without a restart.

A new file takes hold once it has stayed the same for two looks, so a pair of files that is being replaced is not
read half old and half new. One that cannot be used leaves the old value in force, with one warning.
"""

from __future__ import annotations

import logging
import os
import stat
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from boreas_agent.errors import Unusable

_log = logging.getLogger(__name__)
T = TypeVar("T")

LOOK_SECONDS = 2.0
"""Between two looks: a change is in force after twice that."""
MAX_BYTES = 1024 * 1024


def read(path: Path, what: str, check: Callable[[os.stat_result], str] = lambda _: "") -> bytes:
    """The content of a regular file; ``check`` says what is wrong with its owner or mode. Blocking. Raises Unusable.

    What is checked is the opened file, not the path: nothing can be put in its place in between.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise Unusable(f"cannot use {what} {path}: {error.strerror}") from None
    try:
        found = os.fstat(descriptor)
        wrong = check(found) if stat.S_ISREG(found.st_mode) else "it is not a file"
        if not wrong and found.st_size > MAX_BYTES:
            wrong = f"it is larger than {MAX_BYTES} bytes"
        if wrong:
            raise Unusable(f"cannot use {what} {path}: {wrong}")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(MAX_BYTES)
    finally:
        os.close(descriptor)


class Watched(Generic[T]):
    """``value`` is what ``load`` made of the files at ``paths`` when it last could. Making one raises Unusable."""

    def __init__(self, what: str, paths: Sequence[Path], load: Callable[[], T]) -> None:
        self._what, self._paths, self._load = what, tuple(paths), load
        self._lock = threading.Lock()  # the periodic look and one that was asked for may meet
        self._seen = self._read = _signature(self._paths)
        self._complaint = ""
        self.value = load()

    def look(self, *, at_once: bool = False) -> None:
        """Make the value anew if the files have changed and settled; ``at_once`` in any case. Blocking; never raises Unusable."""
        with self._lock:
            seen = _signature(self._paths)
            settled, self._seen = seen == self._seen, seen
            if not at_once and (seen == self._read or not settled):
                return
            try:
                value = self._load()
            except (Unusable, OSError) as error:
                self._complain(str(error))
                return
            if _signature(self._paths) != seen:
                return  # it changed while it was read: what was made of it may be of both
            self.value, self._read, self._complaint = value, seen, ""
            _log.info("read anew", extra={"what": self._what})

    def _complain(self, complaint: str) -> None:
        if complaint != self._complaint:
            self._complaint = complaint
            _log.warning("a changed file cannot be used, so what was read before stays in force", extra={"reason": complaint})


def _signature(paths: Sequence[Path]) -> tuple[tuple[int, ...] | None, ...]:
    return tuple(_stat(path) for path in paths)


def _stat(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
