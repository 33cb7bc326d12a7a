"""The one thread that writes, and its connection; whatever it is given is done in the order in which it was given.

It needs the interpreter as little as can be: what it writes was decided and laid out on the event loop, and each answer
is one callback there.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

from msgspec import Struct
from prometheus_client import Histogram

from boreas_agent.clock import Clock
from boreas_agent.errors import CannotRecord, StartupError
from boreas_agent.store import faults
from boreas_agent.store.bulk import WIDTH, Inserter, Values
from boreas_agent.store.guard import Damaged, Guard
from boreas_agent.store.opening import Kept, write_anew
from boreas_agent.store.wal import Wal

_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5)
"""In seconds, around what an fsync costs."""
_FEW, _SAMPLED = 512, 7
"""Of more than so many values only every so many-th is measured: looking at all of them is felt under load.

It has no factor in common with the width of a row, so that every column is among them.
"""


class Done(Struct, frozen=True):
    """What became of a job."""

    value: Any = None
    error: Exception | None = None
    alike: bool = False
    """The error would meet every other job alike."""
    damaged: bool = False
    """The file has to be written anew before anything else is recorded."""


T = TypeVar("T")
Job = Callable[[], object]
Then = Callable[[Done], object]


class Disk:
    """``run`` and ``close`` are for the event loop; jobs are methods of this, or tasks for ``with_connection``."""

    def __init__(self, path: Path, connection: sqlite3.Connection, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[tuple[Job, Then] | None] = SimpleQueue()
        self._damage = ""  # why the file has to be written anew
        self._written: Values | None = None  # by the last commit, until it is known how much that was
        self._use(connection)
        self.failing = False
        """The last commit failed."""
        self.committed_at = clock.boottime()
        """When the last commit succeeded, in boot seconds."""
        self.commits = 0
        self.commit_seconds = Histogram(
            "boreas_store_commit_seconds", "How long it took to make a commit durable.", registry=None, buckets=_BUCKETS
        )
        self._thread = threading.Thread(target=self._work, name="boreas-store", daemon=True)
        self._thread.start()

    def run(self, job: Job, then: Then) -> None:
        """Have ``job`` done, and ``then`` called on the event loop with what became of it."""
        self._queue.put((job, then))

    @property
    def waiting(self) -> int:
        """Jobs that are not begun."""
        return self._queue.qsize()

    async def close(self) -> None:
        """Do what was asked for so far, then close the connection. Asking again is fine."""
        self._queue.put(None)
        while self._thread.is_alive():
            await self._loop.run_in_executor(None, self._thread.join)

    # --- jobs ------------------------------------------------------------------------------------

    def write(self, values: Values) -> None:
        """Commit these rows. A file that was deleted or damaged would take commits that nobody ever finds again."""
        began = self._clock.boottime()
        self._verify()
        self._inserter.insert(values)
        self.commit_seconds.observe(self._clock.boottime() - began)
        self._written = values
        self._committed()

    def probe(self) -> None:
        """The smallest real commit."""
        self._verify()
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        self._connection.execute(f"PRAGMA user_version = {(version + 1) % 1_000_000}")
        self._committed()

    def shrink(self) -> None:
        """Give back the room of a log that had grown."""
        self._wal.shrink()

    def with_connection(self, task: Callable[[sqlite3.Connection], T]) -> T:
        """Something else between two commits."""
        return task(self._connection)

    def write_anew(self, kept: Kept) -> bool:
        """Put a file with what is ``kept`` in the place of a damaged one; where that fails, the next job finds the damage again."""
        if not self._damage:
            return False
        try:
            opened = write_anew(self._path, self._clock, kept, self._damage, self._connection.close)
        except (StartupError, sqlite3.Error, OSError):
            return False
        self._use(opened.connection)
        self._damage = ""
        return True

    # --- on the thread ---------------------------------------------------------------------------

    def _work(self) -> None:
        while (order := self._queue.get()) is not None:
            job, then = order
            done = self._attempt(job)
            with suppress(RuntimeError):  # the loop was closed under us: nobody waits any more
                self._loop.call_soon_threadsafe(then, done)
            self._attempt(self._account)
        self._wal.truncate()
        self._connection.close()

    def _account(self) -> None:
        """What an answer need not wait for."""
        if self._written is not None:
            values, self._written = self._written, None
            some = values[:: _SAMPLED if len(values) > _FEW else 1]
            characters = sum([len(value) for value in some if isinstance(value, str)])
            self._wal.grown(len(values) // WIDTH, characters * len(values) // len(some))
        if not self._damage:
            self._wal.tidy()

    def _attempt(self, job: Job) -> Done:
        try:
            return Done(job())
        except Exception as error:  # noqa: BLE001  besides SQLite's: values it cannot store; and the thread must live on
            self._roll_back()
            failed = self._failed(error)
            alike = isinstance(error, CannotRecord) or faults.code(error) in faults.HOPELESS
            return Done(error=failed, alike=alike, damaged=bool(self._damage))

    def _failed(self, error: Exception) -> Exception:
        """The error for whoever asked: only the database's own say that nothing can be recorded now."""
        if isinstance(error, CannotRecord):
            self.failing = True
            self._damage = str(error) if isinstance(error, Damaged) else self._damage
            return error
        if faults.code(error) is None:
            return faults.unfit(error)
        self.failing = True
        failed = CannotRecord(f"cannot record changes in {self._path}: {faults.reason(error)}")
        if faults.code(error) in faults.DAMAGED:
            self._damage = str(failed)
        failed.__cause__ = error
        return failed

    def _verify(self) -> None:
        if self._damage:
            raise Damaged(self._damage)
        self._guard.verify()

    def _committed(self) -> None:
        self.failing = False
        self.commits += 1
        self.committed_at = self._clock.boottime()

    def _roll_back(self) -> None:
        """Some failures have rolled back already; one that cannot be shows at the next commit."""
        with suppress(sqlite3.Error):
            if self._connection.in_transaction:
                self._connection.rollback()

    def _use(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._inserter = Inserter(connection)
        self._guard = Guard(self._path)
        self._wal = Wal(self._path, connection, self._clock, self._guard)
