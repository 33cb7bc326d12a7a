"""``boreas-agent sql``: reading the database file itself, so it answers whether the agent runs or not.

Three locks against writing: the file is opened read-only, ``query_only`` is on, and an authorizer lets nothing
through but reading (ATTACH would otherwise create files).
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from boreas_agent.cli.client import CommandFailed
from boreas_agent.cli.render import print_table, table

BUSY_SECONDS = 10.0
_READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
_PRAGMAS = {
    "table_info",
    "table_xinfo",
    "table_list",
    "index_list",
    "index_info",
    "foreign_key_list",
    "user_version",
    "integrity_check",
    "quick_check",
}


def ask(query: str | None, work_dir: str | None, config: str | None, as_json: bool) -> int:
    """Run one query and print its rows. Raises CommandFailed; StartupError where the configuration is wrong."""
    text = sys.stdin.read() if query is None else query
    if not text.strip():
        raise CommandFailed("there is no query; for example: boreas-agent sql 'select * from v_status'")
    path = Path(work_dir or _configured_work_dir(config)) / "agent.db"
    try:
        with closing(_opened(path)) as connection:
            cursor = connection.execute(text)
            columns = _distinct([column[0] for column in cursor.description or ()])
            _print_json(columns, cursor) if as_json else print_table(table(columns, cursor))
    except (sqlite3.Error, sqlite3.Warning) as error:
        raise CommandFailed(_sentence(error, path)) from None
    return 0


def _configured_work_dir(config: str | None) -> str:
    from boreas_agent.configuration import load_settings

    return load_settings({"--config": config}, os.environ).agent.work_dir


def _opened(path: Path) -> sqlite3.Connection:
    try:
        path.stat()
    except FileNotFoundError:
        raise CommandFailed(f"cannot find a database at {path}; --work-dir names the work dir of the agent") from None
    except OSError as error:
        raise CommandFailed(f"cannot read {path}: {error.strerror}; it belongs to the user the agent runs as") from None
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY_SECONDS, isolation_level=None)
    connection.execute("PRAGMA query_only = ON")
    connection.set_authorizer(_authorized)
    return connection


def _authorized(action: int, first: str | None, *_: object) -> int:
    if action in _READING or (action == sqlite3.SQLITE_PRAGMA and first in _PRAGMAS):
        return sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_UPDATE and first == "sqlite_master":
        return sqlite3.SQLITE_OK  # how SQLite declares json_each in memory; the table itself cannot be modified by SQL
    return sqlite3.SQLITE_DENY


def _sentence(error: Exception, path: Path) -> str:
    if "not authorized" in str(error) or "prohibited" in str(error):
        return "cannot run this: only reading is allowed here"
    if "unable to open" in str(error):
        return f"cannot open {path}: it belongs to the user the agent runs as"
    return f"cannot run the query: {error}"


def _distinct(columns: list[str]) -> list[str]:
    """Two columns of one name would be one key in JSON."""
    named: list[str] = []
    for column in columns:
        count = 2
        name = column
        while name in named:
            name, count = f"{column}_{count}", count + 1
        named.append(name)
    return named


def _print_json(columns: list[str], rows: Iterator[tuple[object, ...]]) -> None:
    """An array, written row by row: a long history need not fit into memory."""
    start = "["
    for row in rows:
        print(start, json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False, default=_hex), sep="\n ", end="")
        start = ","
    print("[]" if start == "[" else "\n]")


def _hex(value: object) -> str:
    with contextlib.suppress(AttributeError):
        return value.hex()  # type: ignore[attr-defined, no-any-return]
    return str(value)
