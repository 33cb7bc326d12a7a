"""Starting on what is there: nothing, something old, something newer, something broken."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from boreas_agent.errors import StartupError
from boreas_agent.store import migrate, schema
from boreas_agent.store.opening import open_database
from tests.unit.store_harness import BY, opened, sql, submission
from tests.world import FakeClock

SECOND = """
import sqlalchemy as sa
from alembic import op
revision, down_revision, branch_labels, depends_on = "9999", "NEWEST", None, None
def upgrade():
    op.add_column("events", sa.Column("extra", sa.Text))
""".replace("NEWEST", schema.SCHEMA_REVISION)

OPEN = """
import asyncio, sys
from pathlib import Path
from boreas_agent.clock import SystemClock
from boreas_agent.store.store import Store

async def main():
    store = await Store.open(Path(sys.argv[1]), SystemClock())
    print(*store.heads)
    await store.close()

asyncio.run(main())
print("alembic" in sys.modules)
"""


def _make(path: Path, *, drained: bool = False) -> None:
    async def scenario() -> None:
        async with opened(path) as store:
            await store.apply(submission(), BY)
            if drained:
                await store.drain(BY, "")

    asyncio.run(scenario())


def test_the_migrations_make_exactly_the_tables_of_the_schema(tmp_path: Path) -> None:
    open_database(tmp_path / "agent.db", FakeClock()).connection.close()
    engine = create_engine(f"sqlite:///{tmp_path / 'agent.db'}")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []
    engine.dispose()


def test_the_newest_migration_is_the_one_the_code_asks_for() -> None:
    assert ScriptDirectory(str(migrate.migrations())).get_current_head() == schema.SCHEMA_REVISION


def test_an_up_to_date_database_is_opened_without_importing_alembic(tmp_path: Path) -> None:
    _make(tmp_path)
    done = subprocess.run([sys.executable, "-c", OPEN, str(tmp_path / "agent.db")], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["web", "False"]


def test_an_upgrade_keeps_the_data_a_copy_of_what_was_and_the_views(tmp_path: Path) -> None:
    _make(tmp_path)
    scripts = tmp_path / "scripts"
    shutil.copytree(migrate.migrations(), scripts, ignore=shutil.ignore_patterns("__pycache__"))
    (scripts / "versions" / "9999_extra.py").write_text(SECOND)
    with closing(sqlite3.connect(tmp_path / "agent.db", isolation_level=None)) as connection:
        migrate.bring_up_to_date(tmp_path / "agent.db", connection, scripts, "9999")
    assert sql(tmp_path, "SELECT version_num FROM alembic_version") == [("9999",)]
    assert sql(tmp_path, "SELECT app FROM v_status") == [("web",)]
    assert sql(tmp_path, "SELECT extra FROM events") == [(None,)]
    with closing(sqlite3.connect(tmp_path / f"agent.db.before-{schema.SCHEMA_REVISION}")) as copy:
        assert copy.execute("SELECT version_num FROM alembic_version").fetchall() == [(schema.SCHEMA_REVISION,)]
        assert copy.execute("SELECT app FROM v_status").fetchall() == [("web",)]
    assert (tmp_path / f"agent.db.before-{schema.SCHEMA_REVISION}").stat().st_mode & 0o777 == 0o600


def test_an_upgrade_that_fails_leaves_everything_as_it_was(tmp_path: Path) -> None:
    _make(tmp_path)
    scripts = tmp_path / "scripts"
    shutil.copytree(migrate.migrations(), scripts, ignore=shutil.ignore_patterns("__pycache__"))
    (scripts / "versions" / "9999_extra.py").write_text(SECOND + '    op.execute("SELECT nonsense")\n')
    with (
        closing(sqlite3.connect(tmp_path / "agent.db", isolation_level=None)) as connection,
        pytest.raises(Exception, match="nonsense"),
    ):
        migrate.bring_up_to_date(tmp_path / "agent.db", connection, scripts, "9999")
    assert sql(tmp_path, "SELECT version_num FROM alembic_version") == [(schema.SCHEMA_REVISION,)]
    assert sql(tmp_path, "SELECT app FROM v_status") == [("web",)]
    assert "extra" not in {row[1] for row in sql(tmp_path, "PRAGMA table_info(events)")}


def test_a_database_of_a_newer_agent_is_refused_and_untouched(tmp_path: Path) -> None:
    _make(tmp_path)
    file = tmp_path / "agent.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0999'")
        connection.commit()
    before = file.read_bytes()
    with pytest.raises(StartupError, match=r"schema revision 0999 was made by a newer agent"):
        open_database(file, FakeClock())
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ('heads SET attempts = \'{"0": {"replica": "none"}}\'', "web, .* head: cannot be read: "),
        ("heads SET hold = '{'", "web, .* head: cannot be read: "),
        ("heads SET status = 'dreaming'", "web, .* head: cannot be read: 'dreaming'"),
        ("heads SET deployment = '{\"revision\": 1}'", "web, .* head: has no 'version'"),
        ("heads SET updated = 'yesterday'", "web, .* head: cannot be read: "),
        ("node SET value = '{}'", "the node, .* drained: cannot be read: "),
    ],
)
def test_what_is_recorded_and_cannot_be_read_is_a_sentence(tmp_path: Path, changed: str, why: str) -> None:
    _make(tmp_path, drained=True)
    file = tmp_path / "agent.db"
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute(f"UPDATE {changed}").rowcount == 1
        connection.commit()
    with pytest.raises(StartupError, match=f"cannot use what is recorded of {why}.*; install that agent again"):
        open_database(file, FakeClock())


def test_a_database_of_another_program_is_refused_and_untouched(tmp_path: Path) -> None:
    file = tmp_path / "agent.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")
    before = file.read_bytes()
    with pytest.raises(StartupError, match="another program"):
        open_database(file, FakeClock())
    assert file.read_bytes() == before


def test_a_folder_in_the_place_of_the_database_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "agent.db").mkdir()
    with pytest.raises(StartupError, match=r"cannot open .*agent\.db"):
        open_database(tmp_path / "agent.db", FakeClock())


@pytest.mark.parametrize("damage", ["garbage", "beginning", "middle", "cut"])
def test_a_damaged_database_is_set_aside_whole_and_reported(tmp_path: Path, damage: str) -> None:
    _make(tmp_path)
    file = tmp_path / "agent.db"
    good = file.read_bytes()
    bad = {
        "garbage": b"this is not a database, it is a letter. " * 200,
        "beginning": b"\xff" * 4096 + good[4096:],
        "middle": good[:4096] + b"\xa5" * (len(good) - 8192) + good[-4096:],
        "cut": good[: len(good) // 2],
    }[damage]
    file.write_bytes(bad)

    async def scenario() -> None:
        async with opened(tmp_path) as store:
            assert dict(store.heads) == {}
            (event,) = await store.events()
            assert event["kind"] == "DatabaseDamaged"
            assert "agent.db.damaged-2026-03-01T000000.000Z" in event["message"]
            assert (await store.apply(submission(), BY)).revision == 1

    asyncio.run(scenario())
    assert (tmp_path / "agent.db.damaged-2026-03-01T000000.000Z").read_bytes() == bad


def test_an_empty_file_is_as_good_as_none(tmp_path: Path) -> None:
    (tmp_path / "agent.db").touch()
    _make(tmp_path)
    assert sql(tmp_path, "SELECT app FROM v_status") == [("web",)]
