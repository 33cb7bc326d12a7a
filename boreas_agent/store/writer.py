"""One thread that commits for everybody.

Requests queue up while a commit is under way; the thread then takes all that wait, decides them one after the other
against a draft of the heads, and makes them durable with one commit (WAL, ``synchronous=FULL``), so the cost of fsync is shared. Only then
are they published, all of them by one callback on the event loop, which never waits for anything here.

A transaction that fails publishes nothing; its requests are then tried one by one, so that a bad one fails alone.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import chain
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TypeVar

from boreas_agent.clock import Clock
from boreas_agent.errors import CannotRecord, FieldError, Invalid, StartupError
from boreas_agent.model import Head
from boreas_agent.store import codec, faults, schema
from boreas_agent.store.changes import milliseconds
from boreas_agent.store.codec import Row
from boreas_agent.store.draft import Answer, Decide, Draft, Published, Request, Task
from boreas_agent.store.guard import Damaged, Guard
from boreas_agent.store.opening import Opened, write_anew
from boreas_agent.store.wal import Wal

T = TypeVar("T")
Publish = Callable[[Published], None]

MOST_WAITING = 20_000
"""Requests that may wait for the disk; more are refused at once."""
_MOST_TOGETHER = 512
"""Requests in one transaction, so that the first of a flood does not wait for the last."""


class Writer:
    """The only connection that writes, and its thread. All methods but ``_…`` are for the event loop's thread."""

    def __init__(self, path: Path, opened: Opened, clock: Clock, publish: Publish) -> None:
        self._path = path
        self._connection = opened.connection
        self._drained = opened.drained
        self._heads = dict(opened.heads)  # as committed; the event loop has its own copy, published later
        self._clock = clock
        self._publish = publish
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[Request | Task | None] = SimpleQueue()
        self._statements = schema.statements()
        self._guard = Guard(path)
        self._wal = Wal(path, opened.connection, clock, self._guard)
        self._damage = ""  # why the file has to be written anew
        self._closed = False
        self.failing = False
        """The last commit failed."""
        self.committed_at = clock.boottime()
        """When the last commit succeeded, in boot seconds."""
        self.commits = 0
        self._thread = threading.Thread(target=self._run, name="boreas-store", daemon=True)
        self._thread.start()

    def submit(self, app: str | None, decide: Decide[T]) -> asyncio.Future[T]:
        """Have ``decide`` run and its Change committed; the future gets the answer, or CannotRecord."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._enqueue(Request(app, decide, future))
        return future

    def execute(self, task: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T]:
        """Have ``task`` run on the writing connection, between two commits."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._enqueue(Task(task, future))
        return future

    def _enqueue(self, item: Request | Task) -> None:
        if self._closed:
            raise CannotRecord(f"cannot record changes in {self._path}: the agent is shutting down")
        if self._queue.qsize() >= MOST_WAITING:
            raise CannotRecord(f"cannot record changes in {self._path}: {MOST_WAITING} others are waiting for the disk; try again")
        self._queue.put(item)

    def shrink(self) -> asyncio.Future[None]:
        """Give back the room of a log that had grown."""
        return self.execute(self._wal.shrink)

    async def close(self) -> None:
        """Commit what was asked for so far, then close the connection. Asking again is fine."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
        while self._thread.is_alive():
            await self._loop.run_in_executor(None, self._thread.join)

    # --- on the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        open_ = True
        while open_:
            batch = self._take()
            open_ = batch[-1] is not None
            self._serve([item for item in batch if item is not None])
        self._wal.truncate()
        self._connection.close()

    def _take(self) -> list[Request | Task | None]:
        """All that waits; at least one."""
        batch = [self._queue.get()]
        while len(batch) < _MOST_TOGETHER and batch[-1] is not None:
            try:
                batch.append(self._queue.get_nowait())
            except Empty:
                break
        return batch

    def _serve(self, batch: Sequence[Request | Task]) -> None:
        try:
            requests = [item for item in batch if isinstance(item, Request)]
            if requests:
                self._commit(requests)
            for item in batch:
                if isinstance(item, Task):
                    self._perform(item)
            if self._damage:
                self._write_anew()
            else:
                self._wal.tidy()
        except Exception as error:  # noqa: BLE001  a fault of ours must not leave callers waiting for ever
            message = f"cannot record changes in {self._path}: {error}"
            self._send(Published({}, [Answer(item.future, error=CannotRecord(message)) for item in batch]))

    def _commit(self, requests: Sequence[Request]) -> None:
        now = milliseconds(self._clock.now())
        draft = Draft(self._heads, self._look_up)
        try:
            answers = [draft.decide(request, now) for request in requests]
            self._flush(draft, now)
        except Exception as error:  # noqa: BLE001  besides SQLite's: values it cannot store
            self._roll_back()
            if len(requests) > 1 and faults.code(error) not in faults.HOPELESS and not isinstance(error, CannotRecord):
                for request in requests:
                    self._commit([request])
                return
            self._send(Published({}, [Answer(request.future, error=self._failed(error)) for request in requests]))
            return
        if "node" in draft.rows:
            self._drained = codec.drained(str(draft.rows["node"][-1][1]))
        heads = {app: state if isinstance(state, Head) else None for app, state in draft.states.items()}
        for app, head in heads.items():
            if head is None:
                self._heads.pop(app, None)
            else:
                self._heads[app] = head
        self._send(Published(heads, answers))

    def _flush(self, draft: Draft, now: datetime) -> None:
        if not draft.rows and not draft.states:
            return
        self._begin()
        for table, rows in draft.tables(now):
            self._insert(table, rows)
        self._connection.execute("COMMIT")
        self._succeeded()

    def _begin(self) -> None:
        """A file that was deleted or damaged would take commits that nobody ever finds again."""
        if self._damage:
            raise Damaged(self._damage)
        self._guard.verify()
        self._connection.execute("BEGIN IMMEDIATE")

    def _write_anew(self) -> None:
        """All heads are in memory, so nothing that was promised is lost with the file. Where it fails, the next request tries again."""
        try:
            known = Opened(self._connection, self._heads, drained=self._drained)
            opened = write_anew(self._path, self._clock, known, self._damage, self._connection.close)
        except (StartupError, sqlite3.Error, OSError):
            return
        self._connection = opened.connection
        self._guard = Guard(self._path)
        self._wal = Wal(self._path, self._connection, self._clock, self._guard)
        self._damage = ""
        self._send(Published({}, (), anew=True))

    def _insert(self, table: str, rows: Sequence[Row]) -> None:
        at, size = 0, schema.MOST_ROWS
        while at < len(rows):
            while size > len(rows) - at:
                size //= 2
            values = tuple(chain.from_iterable(rows[at : at + size]))
            self._connection.execute(self._statements[table][size], values)
            self._wal.grown(size, sum(len(value) for value in values if isinstance(value, str)))
            at += size

    def _perform(self, task: Task) -> None:
        try:
            answer = Answer(task.future, task.run(self._connection))
        except Exception as error:  # noqa: BLE001  it belongs to whoever asked
            answer = Answer(task.future, error=self._failed(error))
        self._roll_back()
        self._send(Published({}, [answer]))

    def probe(self, connection: sqlite3.Connection) -> None:
        """A task: the smallest real commit."""
        self._begin()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        connection.execute(f"PRAGMA user_version = {(version + 1) % 1_000_000}")
        connection.execute("COMMIT")
        self._succeeded()

    def _succeeded(self) -> None:
        self.failing = False
        self.commits += 1
        self.committed_at = self._clock.boottime()
        self._wal.grown(2, 0)

    def _failed(self, error: Exception) -> Exception:
        """The error for whoever asked: only the database's own say that nothing can be recorded now."""
        if isinstance(error, CannotRecord):
            self.failing = True
            self._damage = str(error) if isinstance(error, Damaged) else self._damage
            return error
        if isinstance(error, ValueError | OverflowError):  # text that is not Unicode, a number too large
            return Invalid((FieldError("", f"cannot be recorded: {error}"),))
        if faults.code(error) is None:
            return error
        self.failing = True
        failed = CannotRecord(f"cannot record changes in {self._path}: {faults.reason(error)}")
        if faults.code(error) in faults.DAMAGED:
            self._damage = str(failed)
        failed.__cause__ = error
        return failed

    def _roll_back(self) -> None:
        """Some failures have rolled back already; one that cannot be shows at the next BEGIN."""
        with suppress(sqlite3.Error):
            if self._connection.in_transaction:
                self._connection.rollback()

    def _look_up(self, app: str) -> int:
        row = self._connection.execute("SELECT revision FROM heads WHERE app = ?", (app,)).fetchone()
        return row[0] if row else 0

    def _send(self, published: Published) -> None:
        with suppress(RuntimeError):  # the loop was closed under us: nobody waits any more
            self._loop.call_soon_threadsafe(self._publish, published)
