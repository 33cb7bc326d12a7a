"""Noticing that the database file is no longer what we made of it, before another promise is written into it.

SQLite itself would go on for long: its pages are cached, a deleted file still takes writes, and new commits go to the log.
Only what a restart finds counts. In WAL mode nothing but a checkpoint writes to the file, so as long as its size and
time are those after our last one, a commit pays for one ``stat`` and no more.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from boreas_agent.errors import CannotRecord

_MAGIC = b"SQLite format 3\0"


class Damaged(CannotRecord):
    """The file cannot keep what is recorded from now on; it is to be written anew from memory."""


class Guard:
    """One database file, by the only one who may change it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = path.stat()

    def untouched(self) -> bool:
        """Nobody else has written to the file since we did."""
        try:
            return _same(self._path.stat(), self._seen)
        except OSError:
            return False

    def ours(self) -> None:
        """What is there now is our own work."""
        self._seen = self._path.stat()

    def verify(self) -> None:
        """Raise Damaged, or, where another file is in its place, CannotRecord."""
        try:
            now = self._path.stat()
        except OSError as error:
            raise Damaged(self._sentence(f"it is not there any more ({error.strerror})")) from error
        if _same(now, self._seen):
            return
        if not os.path.samestat(now, self._seen):
            raise CannotRecord(f"cannot record changes: {self._path} was replaced while the agent runs; restart the agent to use it")
        verdict = _verdict(self._path)
        if verdict:
            raise Damaged(self._sentence(f"it was damaged while the agent runs ({verdict})"))
        self._seen = now

    def _sentence(self, what: str) -> str:
        return f"cannot record changes in {self._path}: {what}; it is now written anew from memory, try again"


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_ino, one.st_dev, one.st_size, one.st_mtime_ns) == (other.st_ino, other.st_dev, other.st_size, other.st_mtime_ns)


def _verdict(path: Path) -> str:
    """What is wrong with the file, the empty string where nothing is; read with fresh eyes, not through our page cache."""
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            return "it is not a database"
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        return str(error)
    return "" if verdict == "ok" else " ".join(str(verdict).split())
