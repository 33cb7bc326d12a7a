"""All rows of a transaction in one statement.

Every call into SQLite lets go of the interpreter lock, and under load getting it back from the event loop takes longer than
the call. So the rows of all tables go, each with the number of its table and filled up to one width, into a view that only this
connection has, and a trigger for each table takes those that belong there. One statement is one transaction, durable when it returns; only
what is too large for one statement needs BEGIN and COMMIT around several.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from sqlalchemy import Table

from boreas_agent.store import schema
from boreas_agent.store.codec import Row

Values = list[str | int | float | None]
"""Rows laid end to end, each as wide as the view."""

_END_OF_RUN = (
    "ON CONFLICT (app, revision, run) DO UPDATE SET scheduled_at = coalesce(scheduled_at, excluded.scheduled_at), "
    "started_at = coalesce(excluded.started_at, started_at), finished_at = excluded.finished_at, exit_code = excluded.exit_code, "
    "outcome = excluded.outcome, reason = excluded.reason, output_tail = excluded.output_tail WHERE outcome IS NULL"
)
_TABLES: tuple[tuple[Table, str, str], ...] = (
    (schema.revisions, "INSERT", ""),
    (schema.heads, "INSERT OR REPLACE", ""),
    (schema.health, "INSERT", ""),
    (schema.deployments, "INSERT OR REPLACE", ""),  # one that had succeeded may yet be rolled back
    (schema.exits, "INSERT OR IGNORE", ""),  # a run that is recorded already
    (schema.runs, "INSERT", _END_OF_RUN),  # one that goes on comes to its end, once
    (schema.events, "INSERT", ""),
    (schema.node, "INSERT OR REPLACE", ""),
    (schema.images, "INSERT OR REPLACE", ""),
)
_COLUMNS = {table.name: [column.name for column in table.columns if column.name != "id"] for table, _, _ in _TABLES}
_WIDEST = max(map(len, _COLUMNS.values()))
WIDTH = 1 + _WIDEST
"""Values a row: the number of its table, its columns, and zeros up to the widest table's."""
_ZERO = 0
"""Fills up; not None, for which ``sqlite3`` looks long for an adapter, each time in vain."""
_SHAPES = {table.name: (number, (_ZERO,) * (_WIDEST - len(_COLUMNS[table.name]))) for number, (table, _, _) in enumerate(_TABLES, 1)}
_FEWEST_ROWS, _MOST_ROWS = 4, 512


def lay_out(rows: Iterable[tuple[str, Row]]) -> Values:
    """The rows, each with the name of its table, as :class:`Inserter` takes them."""
    values: Values = []
    for table, row in rows:
        number, padding = _SHAPES[table]
        values.append(number)
        values += row
        values += padding
    return values


def prepare(connection: sqlite3.Connection) -> None:
    """Make the view and its triggers; the tables must be there."""
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute(f"CREATE TEMP VIEW incoming AS SELECT NULL AS target, {', '.join(f'NULL AS c{n}' for n in range(_WIDEST))}")
    for number, (table, insert, conflict) in enumerate(_TABLES, 1):
        names = _COLUMNS[table.name]
        row = f"{insert} INTO {table.name} ({', '.join(names)}) VALUES ({', '.join(f'NEW.c{n}' for n in range(len(names)))}) {conflict}"
        connection.execute(
            f"CREATE TEMP TRIGGER incoming_{table.name} INSTEAD OF INSERT ON incoming WHEN NEW.target = {number} BEGIN {row}; END"
        )


class Inserter:
    """Inserts through one prepared connection, which is in autocommit mode."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        most = min(_MOST_ROWS, connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER) // WIDTH)
        self._most = 1 << most.bit_length() - 1

    def insert(self, values: Values) -> None:
        """Durable when it returns; where it raises sqlite3.Error nothing was inserted, once the caller has rolled back."""
        most = self._most * WIDTH
        if len(values) <= most:
            self._run(values)
            return
        self._connection.execute("BEGIN IMMEDIATE")
        for at in range(0, len(values), most):
            self._run(values[at : at + most])
        self._connection.execute("COMMIT")

    def _run(self, values: Values) -> None:
        """Few sizes, filled up with rows for no table, so that the statements stay prepared."""
        rows = len(values) // WIDTH
        size = max(_FEWEST_ROWS, 1 << (rows - 1).bit_length())
        self._connection.execute(_STATEMENTS[size], values + [_ZERO] * ((size - rows) * WIDTH))


def _statement(rows: int) -> str:
    row = f"({', '.join('?' * WIDTH)})"
    return f"INSERT INTO incoming VALUES {', '.join([row] * rows)}"  # noqa: S608  question marks


_STATEMENTS = {1 << power: _statement(1 << power) for power in range(_FEWEST_ROWS.bit_length() - 1, _MOST_ROWS.bit_length())}
