"""The door to everything recorded: desired state, how it goes, and what happened.

The heads of all apps are also in memory, as frozen values: the lock on the work dir makes this the only writer. They
change on the event loop only, and only after the commit that made them durable.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from msgspec.structs import replace
from prometheus_client import Histogram

from boreas_agent import records
from boreas_agent.clock import Clock
from boreas_agent.errors import CannotRecord, Conflict, Invalid, NotFound
from boreas_agent.model import Drained, Event, Good, Head, Hold, PulledImage, Revision
from boreas_agent.spec import Submission
from boreas_agent.store import changes, retention
from boreas_agent.store.dependents import Dependents
from boreas_agent.store.draft import Published
from boreas_agent.store.history import History
from boreas_agent.store.opening import Opened, open_database
from boreas_agent.store.values import HistoryLimits, Outcome, Receipt
from boreas_agent.store.writer import Writer

DEFAULT_LIMITS = HistoryLimits()
_PROOF_SECONDS = 5.0
"""A commit so recent proves that the next one is possible, and longer than this nobody should wait for one."""


class Store:
    """Use from one event loop. Whatever changes something is durable when it returns, or raises CannotRecord."""

    def __init__(self, path: Path, clock: Clock, limits: HistoryLimits, opened: Opened) -> None:
        self._path = path
        self._clock = clock
        self._limits = limits
        self._started = clock.boottime()
        self._heads = dict(opened.heads)
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}
        self.heads: Mapping[str, Head] = MappingProxyType(self._heads)
        """All apps, also those being removed; a live view."""
        self._dependents = Dependents(self._heads)
        self._drained = opened.drained
        self._bell = asyncio.Event()
        self._history = History(path)
        self._writer = Writer(path, opened, self.heads, clock, self._publish)

    @classmethod
    async def open(cls, path: Path, clock: Clock, limits: HistoryLimits = DEFAULT_LIMITS) -> Store:
        """Open or make the database, and migrate it. Raises StartupError."""
        opened = await asyncio.to_thread(open_database, path, clock)
        store = cls(path, clock, limits, opened)
        if opened.set_aside:
            await store.record_events([Event("DatabaseDamaged", opened.set_aside)])
        return store

    async def close(self) -> None:
        """Finish what was asked for; the file is whole and alone afterwards, without a log beside it."""
        await self._history.close()
        await self._writer.close()
        for future in {future for futures in self._waiting.values() for future in futures}:
            future.cancel()

    # --- what is -----------------------------------------------------------------------------------

    @property
    def drained(self) -> Drained | None:
        """Since when and by whom the node is drained; None where it is not."""
        return self._drained

    def head(self, app: str) -> Head | None:
        """All that is remembered of ``app``; None where it is unknown or gone."""
        return self._heads.get(app)

    def dependents(self, app: str) -> frozenset[str]:
        """The apps that depend on ``app``, whether there is such an app or not."""
        return self._dependents.of(app)

    def changed(self, app: str) -> asyncio.Future[None]:
        """Done at the next change of the app's head. Whoever asks before looking at the head misses none."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(app, set())
        waiting.add(future)
        future.add_done_callback(partial(self._stop_waiting, app))
        return future

    @property
    def next_event(self) -> asyncio.Event:
        """Set by the next commit that records an event. Whoever asks for it before reading misses none."""
        return self._bell

    def _stop_waiting(self, app: str, future: asyncio.Future[None]) -> None:
        waiting = self._waiting.get(app, set())
        waiting.discard(future)
        if not waiting:
            self._waiting.pop(app, None)

    def _publish(self, published: Published) -> None:
        for app, head in published.heads.items():
            self._dependents.update(app, self._heads.get(app), head)
            if head is None:
                self._heads.pop(app, None)
            else:
                self._heads[app] = head
            self._tell(app)
        if published.anew:
            self._history.forget()
        if published.happened or published.anew:
            self._bell.set()
            self._bell = asyncio.Event()
        for answer in published.answers:
            answer.give()

    def _tell(self, app: str) -> None:
        for future in self._waiting.pop(app, ()):
            if not future.done():
                future.set_result(None)

    def writable(self) -> bool:
        """The last attempt to commit was not in vain."""
        return not self._writer.disk.failing

    @property
    def commits(self) -> int:
        """How many transactions were committed; many requests may share one."""
        return self._writer.disk.commits

    @property
    def commit_seconds(self) -> Histogram:
        """How long commits took."""
        return self._writer.disk.commit_seconds

    async def check(self) -> None:
        """Find out whether a commit is possible now; costs one at most every few seconds. Raises CannotRecord."""
        if not self._writer.disk.failing and self._clock.boottime() - self._writer.disk.committed_at < _PROOF_SECONDS:
            return
        try:
            await asyncio.wait_for(self._writer.perform(self._writer.disk.probe), _PROOF_SECONDS)
        except TimeoutError:
            raise CannotRecord(f"cannot record changes in {self._path}: no answer from the disk within {_PROOF_SECONDS:g} s") from None

    async def answers(self, seconds: float) -> bool:
        """Whether the writer gets round to anything within ``seconds``; a full disk fails it, but does not silence it."""
        try:
            await asyncio.wait_for(self._writer.execute(lambda _: None), seconds)
        except TimeoutError:
            return False
        except CannotRecord:
            return True
        return True

    # --- what is wanted ------------------------------------------------------------------------------

    async def apply(self, submission: Submission, by: str) -> Receipt:
        """Record a new revision, unless the submission is what the app's head already asks for. ``by`` is who, for people."""
        return await self._writer.submit(submission.app, partial(changes.apply, submission, by))

    async def restart(self, app: str, by: str) -> Receipt:
        """A new revision of the same spec that replaces every instance. Raises NotFound, Conflict."""
        return await self._writer.submit(app, partial(changes.restart, app, by))

    async def rollback(self, app: str, to: int | None, by: str) -> Receipt:
        """The spec of revision ``to`` anew; None: of the newest older one that was healthy. Raises NotFound, Conflict, Transient."""
        head = self._heads.get(app)
        if head is None:
            raise NotFound(f"there is no app {app}")
        older = await self._healthy_before(head) if to is None else await self._known(head, to)
        return await self._writer.submit(app, partial(changes.rollback, older, by))

    async def _healthy_before(self, head: Head) -> Good:
        wanted = head.revision.spec_hash
        if head.good is not None and head.good.revision.spec_hash != wanted:
            return head.good
        for record in await self._history.succeeded(head.app, head.revision.revision):
            with suppress(Invalid):
                older = records.decode(record)
                if older.spec_hash != wanted and not older.removed:
                    return await self._with_bytes(older)
        raise Conflict(f"cannot roll back {head.app}: no older revision of it was healthy; name the revision to go back to")

    async def _known(self, head: Head, revision: int) -> Good:
        if revision == head.revision.revision:
            return Good(head.revision)
        if head.good is not None and revision == head.good.revision.revision:
            return head.good
        record = await self._history.record(head.app, revision)
        if record is None:
            raise Conflict(f"cannot roll back {head.app} to revision {revision}: there is no such revision on record")
        try:
            return await self._with_bytes(records.decode(record))
        except Invalid as error:
            raise Conflict(f"cannot roll back {head.app} to revision {revision}: {error}") from error

    async def _with_bytes(self, older: Revision) -> Good:
        return Good(older, *await self._history.ran(older.app, older.revision))

    async def remove(self, app: str, by: str) -> Receipt:
        """Desired state: absent. Raises NotFound where it already is."""
        return await self._writer.submit(app, partial(changes.remove, app, by))

    async def adopt(self, revision: Revision) -> bool:
        """``revision`` was found on an instance: make it the head where nothing as new is recorded."""
        return await self._writer.submit(revision.app, partial(changes.adopt, revision))

    async def hold(self, app: str, by: str, reason: str, seconds: float | None) -> Receipt:
        """Leave the app alone for ``seconds``, or until it is released. Raises NotFound."""
        wanted = Hold(by, reason, None)
        if seconds is not None:
            until = changes.milliseconds(self._clock.now() + timedelta(seconds=seconds))
            wanted = Hold(by, reason, until, seconds, self._clock.boottime() + seconds, self._clock.boot_id)
        return await self._writer.submit(app, partial(changes.hold, app, wanted))

    async def release(self, app: str, by: str) -> Receipt:
        """End the app's hold. Raises NotFound."""
        return await self._writer.submit(app, partial(changes.release, app, by))

    async def drain(self, by: str, reason: str) -> bool:
        """Have the node run nothing until ``undrain``, whatever its apps ask for; False where that is so already."""
        if self._drained is not None:
            return False
        wanted = Drained(by, reason, changes.milliseconds(self._clock.now()))
        self._drained = await self._writer.submit(None, partial(changes.drain, wanted))
        self._tell_all()
        return True

    async def undrain(self, by: str) -> bool:
        """Have the node run what its apps ask for; False where that is so already."""
        if self._drained is None:
            return False
        await self._writer.submit(None, partial(changes.undrain, by, self._drained))
        self._drained = None
        self._tell_all()
        return True

    def _tell_all(self) -> None:
        for app in tuple(self._waiting):
            self._tell(app)

    async def expire_holds(self) -> list[str]:
        """Release the apps whose hold is over, and name them. After a reboot a hold's time starts over, once."""
        now, released = self._clock.boottime(), []
        for app, head in list(self._heads.items()):
            hold = head.hold
            if hold is None or hold.seconds is None:
                continue
            if hold.boot_id != self._clock.boot_id:
                held = replace(hold, expires=self._started + hold.seconds, boot_id=self._clock.boot_id)
                await self._writer.submit(app, partial(changes.rehold, hold, held))
                hold = held
            if hold.expires is not None and hold.expires <= now and await self._writer.submit(app, partial(changes.expire, app, hold)):
                released.append(app)
        return released

    # --- what was found and done -----------------------------------------------------------------------

    async def record(self, outcome: Outcome) -> None:
        """Commit what one pass found and did. Where nothing is new, nothing is written."""
        await self._writer.submit(outcome.app, partial(changes.record, outcome))

    async def record_events(self, events: Sequence[Event]) -> None:
        """Commit events that belong to no pass."""
        await self._writer.submit(None, partial(changes.record_events, tuple(events)))

    async def images(self) -> Sequence[PulledImage]:
        """The images that the agent has pulled and not removed."""
        return await self._history.images()

    async def record_images(self, images: Sequence[PulledImage], events: Sequence[Event] = ()) -> None:
        """Commit how images are, and events about them."""
        await self._writer.submit(None, partial(changes.record_images, tuple(images), tuple(events)))

    # --- history -----------------------------------------------------------------------------------------

    async def newest(self, app: str) -> int:
        """The newest revision number ever recorded of ``app``, also where it is gone; 0 where there is none."""
        head = self._heads.get(app)
        return head.revision.revision if head else await self._history.newest(app)

    async def revisions(self, app: str, limit: int = 100, before: int | None = None) -> list[dict[str, Any]]:
        """Rows of ``v_revisions``, newest first, ``spec`` decoded; ``before`` is a revision number."""
        return await self._history.revisions(app, limit, before)

    async def deployments(self, app: str, limit: int = 100, before: int | None = None) -> list[dict[str, Any]]:
        """Rows of ``v_deployments``, newest first, ``phases`` decoded; ``before`` is an id."""
        return await self._history.deployments(app, limit, before)

    async def health(self, app: str, limit: int = 100, before: int | None = None) -> list[dict[str, Any]]:
        """Rows of ``v_health``, newest first; ``before`` is an id."""
        return await self._history.health(app, limit, before)

    async def exits(self, app: str, limit: int = 100, before: int | None = None) -> list[dict[str, Any]]:
        """Rows of ``v_exits``, newest first; ``before`` is an id."""
        return await self._history.exits(app, limit, before)

    async def events(self, app: str | None = None, after: int | None = None, limit: int = 100) -> list[dict[str, Any]]:
        """Rows of ``v_events``, oldest first: those after the id ``after``, or, where it is None, the newest."""
        return await self._history.events(app, after, limit)

    async def newest_event(self) -> int:
        """The id of the newest event, 0 where there is none."""
        return await self._history.newest_event()

    async def prune(self) -> int:
        """Delete what is over the limits, and give back the room of a log that had grown; the number of rows deleted."""
        total = 0
        for table in retention.TABLES:
            found = await self._history.read(retention.scope(table, self._limits, self._clock.now()))
            deleted = await self._writer.execute(retention.delete(found)) if found else 0
            while found and retention.more(deleted):
                total += deleted
                deleted = await self._writer.execute(retention.delete(found))
            total += deleted
        await self._writer.perform(self._writer.disk.shrink)
        return total
