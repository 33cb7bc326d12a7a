"""Keeping the write-ahead log small without anybody waiting for it.

Checkpoints run on the writer's thread after answers were given, not inside a commit. A passive one is enough: once all is
in the database and no reader needs the log, the next commit starts it over in place, which is also faster than growing it
(fdatasync of a file that keeps its size), and ``journal_size_limit`` cuts a log that had grown.

A reader from outside that keeps a transaction open keeps the log growing: SQLite cannot reuse what somebody may still read, and
nobody else can end that transaction. The log shrinks with the first commit, or the first ``shrink``, after the reader has ended.
"""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from pathlib import Path

from boreas_agent.clock import Clock
from boreas_agent.store.guard import Guard

SIZE_LIMIT = 4 << 20
"""Bytes that the log keeps on disk when it starts over."""
_PAGE = 4096
_TABLES = 6
"""Last pages that a commit touches, whatever it writes."""
_ENOUGH = 900
"""Pages after which it is worth writing them back; below what fits into ``SIZE_LIMIT``."""
_FAR_TOO_MANY = 4 * _ENOUGH
_PATIENCE_MS = 20
_PAUSE_SECONDS = 5.0
"""Between two attempts that make commits wait for readers."""


class Wal:
    """The log of one database, as its only writer sees it."""

    def __init__(self, path: Path, connection: sqlite3.Connection, clock: Clock, guard: Guard) -> None:
        self._file = path.with_name(path.name + "-wal")
        self._connection = connection
        self._clock = clock
        self._guard = guard
        self._pages = 0  # about how many were written since the last checkpoint
        self._insisted = float("-inf")

    def grown(self, rows: int, characters: int) -> None:
        """A commit wrote so much. Rows fill the last pages of their tables, and touch one page each of an index."""
        self._pages += _TABLES + rows + characters // _PAGE

    def tidy(self) -> None:
        """Write pages back where it is worth it; never fails: a full disk shows at the next commit, not here."""
        if self._pages < _ENOUGH:
            return
        self._pages = 0
        with suppress(sqlite3.Error, OSError):
            log = self._checkpoint("PASSIVE")
            if log > _FAR_TOO_MANY and self._clock.boottime() - self._insisted > _PAUSE_SECONDS:
                self._insisted = self._clock.boottime()
                self._insist("RESTART")

    def shrink(self) -> None:
        """For quiet times: without commits nothing else would cut a log that had grown."""
        with suppress(OSError):
            if self._file.stat().st_size > SIZE_LIMIT:
                self.truncate()

    def truncate(self) -> None:
        """Write all back and cut the log to nothing, if no reader is in the way."""
        with suppress(sqlite3.Error, OSError):
            self._insist("TRUNCATE")

    def _insist(self, mode: str) -> None:
        """Readers that come and go without a pause would keep the log alive for ever; this waits a moment for a gap."""
        (patience,) = self._connection.execute("PRAGMA busy_timeout").fetchone()
        self._connection.execute(f"PRAGMA busy_timeout = {_PATIENCE_MS}")
        try:
            self._checkpoint(mode)
        finally:
            self._connection.execute(f"PRAGMA busy_timeout = {patience}")

    def _checkpoint(self, mode: str) -> int:
        """The number of pages in the log. What others did to the file before is left for the guard to see."""
        untouched = self._guard.untouched()
        _, log, _ = self._connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        if untouched:
            self._guard.ours()
        return int(log)
