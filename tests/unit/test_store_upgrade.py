"""A database of every released schema is brought up to date at start, with all that is in it."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory

from boreas_agent.model import Attempts, Checked, Deadline, Drained, Exit, Hold, Turn
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


DEADLINE = '{"at":1e+22,"delay":3.5,"boot_id":"b"}'
EXIT = (
    '{"run":"r1","started_at":null,"exited_at":"2026-11-28T12:00:01.123000Z","code":1,"signal":null,"oom_killed":false,"reason":"bad ü",'
    '"seconds":2.0,"output_tail":"x\\ny","lost":false,"unhealthy":"","well_seconds":null,"timed_out":false}'
)
ATTEMPTS = (
    f'{{"3":{{"replica":3,"hash":"h","failures":3,"exits":2,"free":true,"restarts":4,"started":true,"not_before":{DEADLINE},"restarted":null,'
    f'"last_failure":"last","last_exit":{EXIT},"recorded":["r1","r2"],"probed":null,"checked":{{"passed":true,"words":"w",'
    f'"again":{DEADLINE},"drift":false}},"overdue":"o","turn":{{"upto":"2026-11-28T12:00:01.123000Z","wanted":true,'
    '"at":"2026-11-28T12:00:01Z","queued":null,"succeeded":false,"failed":"f"}}}'
)
HOLD = '{"by":"me","reason":"r","until":"2026-11-28T17:30:01.123000+05:30","seconds":1.5,"expires":2,"boot_id":"b"}'
DRAINED = '{"by":"me","reason":"","at":"2026-11-28T12:00:01.123000Z"}'


def test_attempts_holds_and_drains_are_read_as_the_first_versions_wrote_them(tmp_path):
    at, deadline = datetime(2026, 11, 28, 12, 0, 1, 123000, tzinfo=UTC), Deadline(1e22, 3.5, "b")

    async def made() -> None:
        async with opened(tmp_path) as store:
            await store.apply(submission("web"), BY)

    async def read() -> None:
        async with opened(tmp_path) as store:
            assert store.drained == Drained("me", "", at)
            head = store.heads["web"]
            assert head.hold == Hold("me", "r", at, 1.5, 2.0, "b")
            assert head.attempts == {
                3: Attempts(
                    replica=3,
                    hash="h",
                    failures=3,
                    exits=2,
                    free=True,
                    restarts=4,
                    started=True,
                    not_before=deadline,
                    last_failure="last",
                    last_exit=Exit("r1", None, at, 1, reason="bad ü", seconds=2.0, output_tail="x\ny"),
                    recorded=("r1", "r2"),
                    checked=Checked(passed=True, words="w", again=deadline),
                    overdue="o",
                    turn=Turn(at, wanted=True, at=at.replace(microsecond=0), failed="f"),
                )
            }

    asyncio.run(made())
    with closing(sqlite3.connect(tmp_path / "agent.db")) as connection:
        connection.execute("UPDATE heads SET attempts = ?, hold = ?", (ATTEMPTS, HOLD))
        connection.execute("INSERT OR REPLACE INTO node VALUES ('drained', ?)", (DRAINED,))
        connection.commit()
    asyncio.run(read())
