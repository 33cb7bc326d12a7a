"""Forgetting the oldest history, a few rows at a time between other people's commits.

A row goes when it is older than the limit in days, or when more than the limit in rows came after it. What the present
needs stays whatever its age: the newest revisions of every app, and how each app is now.

How far to look is found out by a reader, which may take its time; the writer deletes by primary key ranges only.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import datetime, timedelta

from msgspec import Struct
from sqlalchemy import Connection, text

from boreas_agent.clock import timestamp
from boreas_agent.store.values import HistoryLimits

KEPT_REVISIONS = 50
"""Revisions that every app keeps, so that there is something to roll back to."""
_AT_ONCE = 500

_GONE = "NOT EXISTS (SELECT 1 FROM heads h WHERE h.app = t.app AND h.gone = 0)"
_RAN_SINCE = "EXISTS (SELECT 1 FROM runs n WHERE n.app = t.app AND n.id > t.id AND n.started_at IS NOT NULL)"
"""Then it has ended, too, though nobody saw how."""


class _Table(Struct, frozen=True):
    """A history table: which column is its time, and which of its old rows are not needed."""

    name: str
    time: str
    expendable: str = "1"


TABLES = (
    _Table("events", "at"),
    _Table("health", "at", f"({_GONE} OR EXISTS (SELECT 1 FROM health n WHERE n.app = t.app AND n.id > t.id))"),  # noqa: S608  a constant
    _Table("exits", "exited_at"),
    _Table("runs", "coalesce(finished_at, started_at, scheduled_at)", f"(outcome IS NOT NULL OR {_GONE} OR {_RAN_SINCE})"),
    _Table("deployments", "started_at"),
    _Table("images", "pulled_at", "removed_at IS NOT NULL"),
    _Table(
        "revisions",
        "submitted_at",
        f"({_GONE} OR (SELECT count(*) FROM revisions n WHERE n.app = t.app AND n.revision > t.revision) >= {KEPT_REVISIONS}"  # noqa: S608  a constant
        " AND NOT EXISTS (SELECT 1 FROM heads h WHERE h.app = t.app AND h.good = t.revision))",
    ),
)


class Scope(Struct, frozen=True):
    """What may go from one table: ids up to ``last``, of them those up to ``surplus`` and those before ``cutoff``."""

    table: _Table
    last: int
    surplus: int
    cutoff: str


def scope(table: _Table, limits: HistoryLimits, now: datetime) -> Callable[[Connection], Scope | None]:
    """A query: what is over the limits. None where nothing is."""
    cutoff = timestamp(now - timedelta(days=limits.days))

    def query(connection: Connection) -> Scope | None:
        newest = f"SELECT id FROM {table.name} ORDER BY id DESC LIMIT 1 OFFSET :rows"  # noqa: S608  names are constants above
        oldest = f"SELECT max(id) FROM {table.name} WHERE {table.time} < :cutoff"  # noqa: S608
        surplus = connection.execute(text(newest), {"rows": limits.rows}).scalar() or 0
        expired = connection.execute(text(oldest), {"cutoff": cutoff}).scalar() or 0
        return Scope(table, max(surplus, expired), surplus, cutoff) if surplus or expired else None

    return query


def delete(found: Scope) -> Callable[[sqlite3.Connection], int]:
    """A task: delete the oldest few; the number deleted. Below ``_AT_ONCE`` there are no more."""
    table = found.table
    which = (
        f"SELECT id FROM {table.name} t WHERE id <= ? AND (id <= ? OR {table.time} < ?) AND {table.expendable} "  # noqa: S608
        f"ORDER BY id LIMIT {_AT_ONCE}"
    )
    statement = f"DELETE FROM {table.name} WHERE id IN ({which})"  # noqa: S608

    def task(connection: sqlite3.Connection) -> int:
        return connection.execute(statement, (found.last, found.surplus, found.cutoff)).rowcount

    return task


def more(deleted: int) -> bool:
    """Whether a deletion was stopped by its size."""
    return deleted >= _AT_ONCE
