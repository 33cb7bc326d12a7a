"""A database of every released schema is brought up to date at start, with all that is in it."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory

from boreas_agent.store import migrate
from boreas_agent.store.schema import SCHEMA_REVISION
from tests.unit.store_harness import BY, opened, sql, submission

DATA = Path(__file__).parents[1] / "data"
OLD = sorted(path.stem.removeprefix("schema-") for path in DATA.glob("schema-*.sql"))
TABLES = ("revisions", "heads", "health", "exits", "events")


def older_schemas() -> list[str]:
    scripts = ScriptDirectory(str(migrate.migrations()))
    return sorted(script.revision for script in scripts.walk_revisions() if script.revision != SCHEMA_REVISION)


def restored(folder: Path, revision: str) -> Path:
    """The database file of an agent of that schema, in ``folder``."""
    file = folder / "agent.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript((DATA / f"schema-{revision}.sql").read_text())
    return file


def rows(file: Path) -> dict[str, list[tuple[object, ...]]]:
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
        return {table: connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall() for table in TABLES}


def test_a_database_of_every_older_schema_is_kept():
    assert older_schemas() == OLD


@pytest.mark.parametrize("revision", OLD)
def test_an_old_database_is_upgraded_with_all_its_rows_after_a_copy(tmp_path, revision):
    file = restored(tmp_path, revision)
    before = rows(file)
    assert len(before["revisions"]) >= 8
    assert before["exits"]

    async def scenario() -> None:
        async with opened(tmp_path) as store:
            assert set(store.heads) == {"broken", "clock", "hello", "parked", "web"}
            clock = store.heads["clock"]
            assert (clock.revision.revision, clock.revision.pkg.replicas, clock.health.status) == (2, 2, "running")
            assert store.heads["parked"].hold is not None
            assert store.drained is None
            assert await store.newest("gone") == 2  # the number of a removed app is not used again
            await store.apply(submission("web", version="v2"), BY)
            assert await store.drain(BY, "")

    asyncio.run(scenario())
    assert sql(tmp_path, "SELECT version_num FROM alembic_version") == [(SCHEMA_REVISION,)]
    after = rows(file)
    assert all(set(before[table]) <= set(after[table]) for table in ("revisions", "exits", "events"))
    assert rows(tmp_path / f"agent.db.before-{revision}") == before


def test_only_the_newest_copies_are_kept(tmp_path):
    restored(tmp_path, OLD[0])
    for number in range(5):
        copy = tmp_path / f"agent.db.before-000{number}x"
        copy.touch()
        copy.chmod(0o600)

    async def scenario() -> None:
        async with opened(tmp_path):
            pass

    asyncio.run(scenario())
    kept = sorted(path.name for path in tmp_path.glob("agent.db.before-*"))
    assert len(kept) == migrate.KEPT_COPIES
    assert f"agent.db.before-{OLD[0]}" in kept


def test_a_database_that_is_a_migration_ahead_is_refused_and_stays_as_it_is_byte_for_byte(tmp_path):
    file = restored(tmp_path, OLD[-1])
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '0999'")
    before = file.read_bytes()

    async def scenario() -> None:
        async with opened(tmp_path):
            raise AssertionError("it was opened")

    with pytest.raises(Exception, match=r"schema revision 0999 was made by a newer agent .* install that agent again"):
        asyncio.run(scenario())
    assert file.read_bytes() == before
    assert not list(tmp_path.glob("agent.db.*"))
