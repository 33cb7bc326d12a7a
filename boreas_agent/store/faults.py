"""What SQLite's errors mean for whoever wanted something recorded."""

from __future__ import annotations

import sqlite3

from boreas_agent.errors import FieldError, Invalid

_REASONS = {
    sqlite3.SQLITE_FULL: "the disk is full; it works again once there is room",
    sqlite3.SQLITE_BUSY: "another program holds a lock on it; end that program's transaction",
    sqlite3.SQLITE_CORRUPT: "it is damaged; it is now written anew from memory, try again",
    sqlite3.SQLITE_NOTADB: "it is damaged; it is now written anew from memory, try again",
    sqlite3.SQLITE_READONLY: "it is read-only",
}
DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
"""The file itself is wrong."""
HOPELESS = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
}
"""What meets every request alike: trying them one by one would only take longer."""


def code(error: Exception) -> int | None:
    """SQLite's primary result code; None where the error is not SQLite's."""
    if not isinstance(error, sqlite3.Error):
        return None
    found: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    return found & 0xFF


def reason(error: Exception) -> str:
    """Why it failed, with the way out where there is one."""
    return _REASONS.get(code(error) or sqlite3.SQLITE_ERROR, str(error))


def unfit(error: Exception) -> Exception:
    """The error for whoever sent a value that cannot be stored: text that is not Unicode, a number too large."""
    return Invalid((FieldError("", f"cannot be recorded: {error}"),)) if isinstance(error, ValueError | OverflowError) else error
