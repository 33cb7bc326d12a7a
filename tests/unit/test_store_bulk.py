"""Rows of many tables in one statement."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from boreas_agent.store import schema
from boreas_agent.store.bulk import WIDTH, Inserter, lay_out
from boreas_agent.store.codec import Row
from boreas_agent.store.opening import open_database
from tests.world import FakeClock

AT = "2026-03-01T00:00:00.000Z"
EXIT: Row = ("web", 1, 0, "1", None, AT, None, "SIGKILL", 1, "killed", 0.5, "the end\0\n")
ROWS: tuple[tuple[str, Row], ...] = (
    ("revisions", ("web", 1, "v1", "apply", "binary", '{"secret": "ü"}', "{}", AT, "me")),
    ("events", (AT, None, None, "Started", "of no app")),
    ("exits", EXIT),
    ("health", ("web", "v1", 1, AT, "running", 100, "Running")),
    (
        "heads",
        (
            "web",
            1,
            0,
            "running",
            100,
            "Running",
            AT,
            "",
            "{}",
            None,
            '{"at": 1.5}',
            "binary",
            '{"number": 2}',
            None,
            None,
            '{"1.0:1": ""}',
            None,
        ),
    ),
    ("deployments", ("web", 2, 1, "v1", "apply", AT, AT, 0.5, "succeeded", "healthy", "[]", "sha256:1", None)),
)


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(open_database(tmp_path / "agent.db", FakeClock()).connection) as opened:
        yield opened


def events(count: int) -> list[tuple[str, Row]]:
    return [("events", (AT, "web", number, "Tick", "x" * number)) for number in range(count)]


def stored(connection: sqlite3.Connection, table: str) -> list[tuple[Any, ...]]:
    names = [column.name for column in schema.metadata.tables[table].columns if column.name != "id"]
    order = "app" if table == "heads" else "id"
    return connection.execute(f"SELECT {', '.join(names)} FROM {table} ORDER BY {order}").fetchall()


def test_every_value_lands_in_its_column(connection: sqlite3.Connection) -> None:
    Inserter(connection).insert(lay_out(ROWS))
    for table, row in ROWS:
        assert stored(connection, table) == [row], table


def test_a_head_takes_the_place_of_the_one_before_and_an_exit_that_is_recorded_already_changes_nothing(
    connection: sqlite3.Connection,
) -> None:
    inserter = Inserter(connection)
    inserter.insert(lay_out(ROWS))
    newer: Row = ("web", 2, 0, "stopped", 0, "stopped", AT, "", "{}", None, None, "", None, 1, "sha256:1", None, "x@sha256:2")
    inserter.insert(lay_out([("heads", newer), ("exits", (*EXIT[:-1], "another word on the same end"))]))
    assert stored(connection, "heads") == [newer]
    assert stored(connection, "exits") == [EXIT]


@pytest.mark.parametrize("count", [1, 3, 4, 5, 64, 65, 512, 513, 2000])
def test_however_many_there_are_each_is_there_once_and_in_order(connection: sqlite3.Connection, count: int) -> None:
    Inserter(connection).insert(lay_out(events(count)))
    assert stored(connection, "events") == [row for _, row in events(count)]
    assert not connection.in_transaction


def test_a_library_that_takes_few_values_a_statement_gets_more_statements(connection: sqlite3.Connection) -> None:
    connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 999)
    Inserter(connection).insert(lay_out(events(300)))
    assert len(stored(connection, "events")) == 300


@pytest.mark.parametrize("count", [10, 2000], ids=["one statement", "several"])
def test_where_one_row_cannot_be_stored_none_is(connection: sqlite3.Connection, count: int) -> None:
    bad: tuple[str, Row] = ("revisions", ROWS[0][1])
    values = lay_out([*events(count), bad, bad])
    with pytest.raises(sqlite3.IntegrityError):
        Inserter(connection).insert(values)
    connection.rollback()
    assert stored(connection, "events") == []
    assert len(values) == (count + 2) * WIDTH
