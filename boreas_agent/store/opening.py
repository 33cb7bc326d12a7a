"""Opening the database at start: its file, its settings, its schema, its heads; and what to do where it is damaged.

A damaged file is set aside whole, with its log, and an empty one takes its place: the instances carry their revisions,
so what runs is adopted. Anything else that is wrong stops the start with a sentence, and leaves the file as it is.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from boreas_agent.clock import Clock, timestamp
from boreas_agent.errors import Invalid, StartupError
from boreas_agent.model import Drained, Event, Head
from boreas_agent.store import bulk, codec, faults, gone, migrate
from boreas_agent.store.codec import Row
from boreas_agent.store.wal import SIZE_LIMIT

_BUSY_SECONDS = 2.0
"""How long a commit waits for a lock that somebody took from outside."""
_SUFFIXES = ("", "-wal", "-shm")


class Opened(Struct, frozen=True):
    """The writing connection, what it holds (``gone`` as for ``gone.Gone``), and where a damaged predecessor was put, and why."""

    connection: sqlite3.Connection
    heads: Mapping[str, Head]
    gone: Sequence[tuple[str, int]] = ()
    set_aside: str = ""
    drained: Drained | None = None


class Kept(Struct, frozen=True):
    """What is held in memory of a database, and outlives the file."""

    heads: Mapping[str, Head]
    drained: Drained | None


def open_database(path: Path, clock: Clock) -> Opened:
    """Blocking. Raises StartupError."""
    try:
        try:
            _finish_writing_anew(path)
            return _open(path)
        except sqlite3.DatabaseError as error:
            if faults.code(error) not in faults.DAMAGED:
                raise
            kept = _set_aside(path, clock)
            return replace(_open(path), set_aside=f"{path.name} was damaged ({error}) and is set aside as {kept}; what runs is adopted")
    except (sqlite3.Error, OSError) as error:
        raise StartupError(f"cannot open {path}: {error}") from error


def write_anew(path: Path, clock: Clock, kept: Kept, why: str, let_go: Callable[[], None]) -> Opened:
    """Put a new database with what is ``kept`` in the place of a damaged one; ``let_go`` closes the old one.

    Raises StartupError, sqlite3.Error, OSError. The new file is made whole under another name first, so that a full disk
    leaves everything as it is. The old one is moved before it is closed: SQLite then leaves it, and the new one's log, alone.
    """
    fresh = path.with_name(path.name + ".new")
    for suffix in _SUFFIXES:
        fresh.with_name(fresh.name + suffix).unlink(missing_ok=True)
    with closing(_open(fresh).connection) as connection:
        _fill(connection, clock, kept, why)
    _set_aside(path, clock)
    let_go()
    fresh.rename(path)
    return _open(path)


def _fill(connection: sqlite3.Connection, clock: Clock, kept: Kept, why: str) -> None:
    rows: list[tuple[str, Row]] = [("node", codec.drained_row(kept.drained))]
    for head in kept.heads.values():
        rows += (
            ("revisions", codec.revision_row(head.revision)),
            *([("revisions", codec.revision_row(head.good.revision))] if head.good else []),
            ("heads", codec.head_row(head)),
            ("health", codec.health_row(head.revision, head.health, head.updated)),
        )
    rows.append(("events", codec.event_row(Event("DatabaseDamaged", f"{why} (its history is set aside)"), clock.now())))
    bulk.Inserter(connection).insert(bulk.lay_out(rows))


def _finish_writing_anew(path: Path) -> None:
    """``write_anew`` was cut short after it had set the damaged file aside: the new one is whole."""
    fresh = path.with_name(path.name + ".new")
    if fresh.exists() and not path.exists():
        fresh.rename(path)


def _open(path: Path) -> Opened:
    migrate.refuse_newer(path)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
    path.chmod(0o600)
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        _settings(connection)
        _check(connection)
        migrate.bring_up_to_date(path, connection)
        bulk.prepare(connection)
        return Opened(connection, _heads(connection), _gone(connection), drained=_drained(connection))
    except BaseException:
        connection.close()
        raise


def _settings(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA journal_size_limit = {SIZE_LIMIT}")
    connection.execute("PRAGMA wal_autocheckpoint = 0")  # see wal.py


def _check(connection: sqlite3.Connection) -> None:
    """Damage anywhere in the file shows now, not on the day somebody needs that page."""
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        error = sqlite3.DatabaseError(" ".join(verdict.split()))
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error


def _heads(connection: sqlite3.Connection) -> dict[str, Head]:
    joined = (
        "heads h JOIN revisions r ON r.app = h.app AND r.revision = h.revision "
        "LEFT JOIN revisions g ON g.app = h.app AND g.revision = h.good"
    )
    heads = {}
    for app, *row in connection.execute(f"SELECT h.app, {codec.HEAD_COLUMNS} FROM {joined} WHERE h.gone = 0 ORDER BY h.app"):  # noqa: S608  constants
        try:
            heads[app] = codec.head(tuple(row))
        except Invalid as error:
            raise _unreadable(app, error) from error
    return heads


def _unreadable(what: str, error: Invalid) -> StartupError:
    return StartupError(
        f"cannot use what is recorded of {what}, perhaps by a newer agent: {error}; install that agent again, "
        "or move agent.db and what begins with its name away: then what runs is adopted, and all else forgotten"
    )


def _gone(connection: sqlite3.Connection) -> Sequence[tuple[str, int]]:
    """One more than are kept in memory tells that there are more."""
    newest = f"SELECT app, revision FROM heads WHERE gone = 1 ORDER BY updated DESC LIMIT {gone.MOST + 1}"  # noqa: S608  a constant
    return connection.execute(newest).fetchall()[::-1]


def _drained(connection: sqlite3.Connection) -> Drained | None:
    row = connection.execute("SELECT value FROM node WHERE name = 'drained'").fetchone()
    try:
        return codec.drained(row[0]) if row else None
    except Invalid as error:
        raise _unreadable("the node", error) from error


def _set_aside(path: Path, clock: Clock) -> str:
    """Together with its log, so that whoever repairs it has all of it."""
    kept = path.with_name(f"{path.name}.damaged-{timestamp(clock.now()).replace(':', '')}")
    for suffix in _SUFFIXES:
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(kept.with_name(kept.name + suffix))
    return kept.name
