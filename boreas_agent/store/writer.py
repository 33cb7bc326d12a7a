"""Group commit: requests are decided on the event loop, in order, and made durable together by a thread.

While a commit is under way requests queue up; all that wait are then decided one after the other against a draft of the
heads, and their rows become one commit (WAL, ``synchronous=FULL``), so the cost of fsync is shared. Only when it has returned is
anything published, by the one callback that also begins the next commit: there is never more than one draft.

A transaction that fails publishes nothing; its requests are then decided and tried one by one, so that a bad one fails alone.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from boreas_agent.clock import Clock
from boreas_agent.errors import CannotRecord
from boreas_agent.model import Head
from boreas_agent.store import codec, faults
from boreas_agent.store.changes import milliseconds
from boreas_agent.store.disk import Disk, Done
from boreas_agent.store.draft import Answer, Decide, Draft, Published, Request
from boreas_agent.store.gone import Gone
from boreas_agent.store.opening import Kept, Opened

T = TypeVar("T")
Publish = Callable[[Published], None]

MOST_WAITING = 20_000
"""Requests that may wait for the disk; more are refused at once."""
_MOST_TOGETHER = 128
"""Requests in one transaction, so that neither the first of a flood waits for the last, nor everybody else for the decisions."""


class Writer:
    """For one event loop. ``heads`` are as published, and change by ``publish`` alone."""

    def __init__(self, path: Path, opened: Opened, heads: Mapping[str, Head], clock: Clock, publish: Publish) -> None:
        self._path = path
        self._heads = heads
        self._gone = Gone(opened.gone)
        self._drained = opened.drained
        self._clock = clock
        self._publish = publish
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Request] = deque()
        self._crowded = False  # the last time several came together
        self._alone = 0  # so many of the first that wait failed together, and are tried one by one
        self._due = False
        self._writing = False
        self._closed = False
        self.disk = Disk(path, opened.connection, clock)

    async def submit(self, app: str | None, decide: Decide[T]) -> T:
        """Have ``decide`` run and its Change committed, and return its answer. Raises CannotRecord, and what ``decide`` raises."""
        newest = 0 if app is None or app in self._heads else await self._newest(app)
        self._refuse_or_accept(len(self._waiting))
        future: asyncio.Future[T] = self._loop.create_future()
        self._waiting.append(Request(app, newest, decide, future))
        self._begin_soon()
        return await future

    async def _newest(self, app: str) -> int:
        known = self._gone.newest(app)
        return await self.execute(partial(_look_up, app)) if known is None else known

    async def execute(self, task: Callable[[sqlite3.Connection], T]) -> T:
        """Have ``task`` run on the writing connection, between two commits."""
        return await self.perform(partial(self.disk.with_connection, task))

    async def perform(self, job: Callable[[], T]) -> T:
        """Have a job of the disk's done."""
        self._refuse_or_accept(self.disk.waiting)
        return await self._ask(job)

    async def close(self) -> None:
        """Commit what was asked for so far, then close the connection. Asking again is fine."""
        if not self._closed:
            self._closed = True
            while self._waiting or self._writing:
                await self._ask(lambda: None)
        await self.disk.close()

    def _refuse_or_accept(self, waiting: int) -> None:
        if self._closed:
            raise CannotRecord(f"cannot record changes in {self._path}: the agent is shutting down")
        if waiting >= MOST_WAITING:
            raise CannotRecord(f"cannot record changes in {self._path}: {MOST_WAITING} others are waiting for the disk; try again")

    async def _ask(self, job: Callable[[], T]) -> T:
        future: asyncio.Future[T] = self._loop.create_future()
        self.disk.run(job, partial(self._asked, future))
        return await future

    def _asked(self, future: asyncio.Future[T], done: Done) -> None:
        Answer(future, done.value, done.error).give()
        self._mend(done)

    # --- one commit after the other --------------------------------------------------------------

    def _begin_soon(self) -> None:
        """Not at once where many ask: what else comes in the same turn of the loop belongs into the same commit."""
        if self._due or self._writing:
            return
        if self._crowded or self._alone:
            self._due = True
            self._loop.call_soon(self._begin)
        else:
            self._begin()

    def _begin(self) -> None:
        self._due = False
        requests = self._take()
        self._crowded = len(requests) > 1
        now = milliseconds(self._clock.now())
        draft = Draft(self._heads, self._gone)
        answers = [draft.decide(request, now) for request in requests]
        if draft.empty:
            self._finish(draft, answers)
            return
        self._writing = True
        try:
            values = draft.values(now)
        except Exception as error:  # noqa: BLE001  a fault of ours must not leave callers waiting for ever
            self._written(requests, draft, answers, Done(error=faults.unfit(error)))
            return
        self.disk.run(partial(self.disk.write, values), partial(self._written, requests, draft, answers))

    def _take(self) -> Sequence[Request]:
        if self._alone:
            self._alone -= 1
            return (self._waiting.popleft(),)
        return [self._waiting.popleft() for _ in range(min(len(self._waiting), _MOST_TOGETHER))]

    def _written(self, requests: Sequence[Request], draft: Draft, answers: Sequence[Answer], done: Done) -> None:
        self._writing = False
        self._mend(done)
        if done.error is None:
            self._finish(draft, answers)
        elif len(requests) > 1 and not done.alike:
            self._waiting.extendleft(reversed(requests))
            self._alone = len(requests)
            self._begin_soon()
        else:
            self._finish(Draft(self._heads, self._gone), [Answer(request.future, error=done.error) for request in requests])

    def _finish(self, draft: Draft, answers: Sequence[Answer]) -> None:
        heads = {app: state if isinstance(state, Head) else None for app, state in draft.states.items()}
        for app, state in draft.states.items():
            if not isinstance(state, Head):
                self._gone.put(app, state)
        for table, row in draft.rows:
            if table == "node":
                self._drained = codec.drained(str(row[1]))
        self._publish(Published(heads, answers, happened=any(table == "events" for table, _ in draft.rows)))
        if self._waiting:
            self._begin_soon()

    def _mend(self, done: Done) -> None:
        """All heads are in memory, so nothing that was promised is lost with the file. Before the next commit."""
        if done.damaged:
            self.disk.run(partial(self.disk.write_anew, Kept(dict(self._heads), self._drained)), self._mended)

    def _mended(self, done: Done) -> None:
        if done.value:
            self._publish(Published({}, (), anew=True))


def _look_up(app: str, connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT revision FROM heads WHERE app = ?", (app,)).fetchone()
    return row[0] if row else 0
