"""Reading the history: through connections that cannot write, in threads of their own.

Only the public views are read here, so what the API answers is what SQL answers.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import ColumnClause, Connection, Integer, Select, Text, column, create_engine, func, literal_column, select, table, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool

from boreas_agent.clock import parse_timestamp
from boreas_agent.errors import Transient
from boreas_agent.model import PulledImage

T = TypeVar("T")
_READERS = 2
_BUSY_SECONDS = 5.0
_app: ColumnClause[str] = column("app", Text)
_id: ColumnClause[int] = column("id", Integer)
_revision: ColumnClause[int] = column("revision", Integer)
_record: ColumnClause[str] = column("record", Text)


class History:
    """A few read-only connections. Every method raises Transient where the database cannot be read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._threads = ThreadPoolExecutor(_READERS, thread_name_prefix="boreas-read")
        self._engine = create_engine("sqlite://", creator=self._connect, poolclass=QueuePool, pool_size=_READERS, max_overflow=0)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"{self._path.absolute().as_uri()}?mode=ro", uri=True, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA query_only = 1")
        return connection

    async def close(self) -> None:
        """After the reads under way."""
        await asyncio.get_running_loop().run_in_executor(None, self._threads.shutdown)
        self._engine.dispose()

    def forget(self) -> None:
        """Read from the file that is there from now on, not from the one that was."""
        self._engine.dispose()

    async def read(self, query: Callable[[Connection], T]) -> T:
        """``query``, in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._read, query)

    def _read(self, query: Callable[[Connection], T]) -> T:
        try:
            with self._engine.connect() as connection:
                return query(connection)
        except DBAPIError as error:
            raise Transient(f"cannot read {self._path}: {error.orig}") from error

    async def _rows(self, query: Select[Any]) -> list[dict[str, Any]]:
        return await self.read(lambda connection: [dict(row) for row in connection.execute(query).mappings()])

    async def newest(self, app: str) -> int:
        """The newest revision number ever recorded of ``app``, 0 where there is none."""
        query = select(_revision).select_from(table("heads")).where(_app == app)
        return await self.read(lambda connection: connection.execute(query).scalar() or 0)

    async def revisions(self, app: str, limit: int, before: int | None) -> list[dict[str, Any]]:
        """Newest first; ``before`` is a revision number."""
        query = _view("v_revisions").where(_app == app).order_by(_revision.desc()).limit(limit)
        rows = await self._rows(query.where(_revision < before) if before is not None else query)
        return [row | {"spec": json.loads(row["spec"])} for row in rows]

    async def deployments(self, app: str, limit: int, before: int | None) -> list[dict[str, Any]]:
        """Newest first; ``before`` is an id."""
        return [row | {"phases": json.loads(row["phases"])} for row in await self._rows(_newest_first("v_deployments", app, limit, before))]

    async def record(self, app: str, revision: int) -> str | None:
        """The record of one revision, None where it is not known (any more)."""
        query = select(_record).select_from(table("revisions")).where(_app == app, _revision == revision)
        return await self.read(lambda connection: connection.execute(query).scalar())

    async def succeeded(self, app: str, before: int) -> list[str]:
        """The records of the newest revisions older than ``before`` whose deployments succeeded, newest first."""
        query = text(
            "SELECT DISTINCT r.revision, r.record FROM revisions r JOIN deployments d ON d.app = r.app AND d.revision = r.revision "
            "WHERE r.app = :app AND r.revision < :before AND d.outcome = 'succeeded' ORDER BY r.revision DESC LIMIT 50"
        )
        return await self.read(lambda connection: [record for _, record in connection.execute(query, {"app": app, "before": before})])

    async def ran(self, app: str, revision: int) -> tuple[str, str]:
        """The image that a revision ran the last time, and where it can be fetched again; both empty where that is not known."""
        query = text(
            "SELECT image, digest FROM deployments WHERE app = :app AND revision = :revision AND image IS NOT NULL "
            "ORDER BY number DESC LIMIT 1"
        )

        def ask(connection: Connection) -> tuple[str, str]:
            row = connection.execute(query, {"app": app, "revision": revision}).first()
            return (str(row[0]), str(row[1] or "")) if row else ("", "")

        return await self.read(ask)

    async def images(self) -> list[PulledImage]:
        """Those that are not removed."""
        query = text("SELECT image, names, pulled_at, idle FROM images WHERE removed_at IS NULL ORDER BY id")

        def ask(connection: Connection) -> list[PulledImage]:
            rows = connection.execute(query)
            return [PulledImage(image, tuple(names.split()), parse_timestamp(at), idle) for image, names, at, idle in rows]

        return await self.read(ask)

    async def health(self, app: str, limit: int, before: int | None) -> list[dict[str, Any]]:
        """Changes of health, newest first; ``before`` is an id."""
        return await self._rows(_newest_first("v_health", app, limit, before))

    async def exits(self, app: str, limit: int, before: int | None) -> list[dict[str, Any]]:
        """Ends of runs, in the order they were recorded, newest first; ``before`` is an id."""
        return [row | {"oom_killed": bool(row["oom_killed"])} for row in await self._rows(_newest_first("v_exits", app, limit, before))]

    async def events(self, app: str | None, after: int | None, limit: int) -> list[dict[str, Any]]:
        """Oldest first: the ``limit`` that follow the id ``after``, or, where it is None, the newest ``limit``."""
        query = _view("v_events").limit(limit)
        if app is not None:
            query = query.where(_app == app)
        if after is not None:
            return await self._rows(query.where(_id > after).order_by(_id))
        return (await self._rows(query.order_by(_id.desc())))[::-1]

    async def newest_event(self) -> int:
        """The id of the newest event, 0 where there is none."""
        query = select(func.max(_id)).select_from(table("v_events"))
        return await self.read(lambda connection: connection.execute(query).scalar() or 0)


def _view(name: str) -> Select[Any]:
    return select(literal_column("*")).select_from(table(name))


def _newest_first(view: str, app: str, limit: int, before: int | None) -> Select[Any]:
    query = _view(view).where(_app == app).order_by(_id.desc()).limit(limit)
    return query.where(_id < before) if before is not None else query
