"""Two durable SQLite commits of rows as large as the agent's: the floor for recording a revision and what became of it."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path


def connect(path: Path) -> sqlite3.Connection:
    """A database set up like the agent's: a commit returns once it would survive power loss."""
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    database.execute("CREATE TABLE revisions (app TEXT, revision INTEGER, spec TEXT, PRIMARY KEY (app, revision)) WITHOUT ROWID")
    database.execute("CREATE TABLE events (id INTEGER PRIMARY KEY, at TEXT, app TEXT, message TEXT)")
    return database


def two_commits(database: sqlite3.Connection, number: int, spec: str) -> float:
    """Seconds for two transactions of one revision and one event each."""
    began = time.perf_counter()
    for revision in (2 * number, 2 * number + 1):
        database.execute("BEGIN IMMEDIATE")
        database.execute("INSERT INTO revisions VALUES ('bench', ?, ?)", (revision, spec))
        database.execute("INSERT INTO events (at, app, message) VALUES ('2024-01-01T00:00:00.000Z', 'bench', 'a revision was recorded')")
        database.execute("COMMIT")
    return time.perf_counter() - began
