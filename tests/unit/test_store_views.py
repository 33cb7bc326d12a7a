"""What others read with SQL."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

from boreas_agent.model import Health, Status
from tests.unit.store_harness import BY, opened, outcome, sql, submission

COLUMNS = {
    "v_status": {"app", "version", "revision", "status", "level", "msg", "updated"},
    "v_revisions": {"app", "revision", "version", "type", "spec", "submitted_at", "submitted_by"},
    "v_health": {"app", "version", "at", "status", "level", "msg"},
    "v_exits": {"app", "revision", "replica", "started_at", "exited_at", "exit_code", "signal", "oom_killed", "reason"},
    "v_runs": {"app", "revision", "scheduled_at", "started_at", "finished_at", "exit_code", "outcome", "output_tail"},
    "v_images": {"image", "names", "pulled_at", "idle_seconds", "removed_at"},
    "v_events": {"id", "at", "app", "revision", "kind", "message"},
}


def test_every_public_view_has_its_columns(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path):
            for view, columns in COLUMNS.items():
                with closing(sqlite3.connect(tmp_path / "agent.db")) as reader:
                    assert columns <= {column[0] for column in reader.execute(f"SELECT * FROM {view}").description}

    asyncio.run(scenario())


def test_status_lists_what_is_there_or_being_removed_and_not_what_is_gone(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as store:
            for app in ("web", "leaving", "left"):
                await store.apply(submission(app), BY)
            await store.record(outcome(store, "web"))
            for app in ("leaving", "left"):
                await store.remove(app, BY)
            await store.record(outcome(store, "left", gone=True))
            assert sql(tmp_path, "SELECT app, version, revision, status, level, updated FROM v_status") == [
                ("leaving", "v1", 2, "removing", 0, "2026-03-01T00:00:00.000Z"),
                ("web", "v1", 1, "running", 100, "2026-03-01T00:00:00.000Z"),
            ]

    asyncio.run(scenario())


def test_environment_values_are_masked_wherever_people_look(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as store:
            await store.apply(submission(environment={"PASSWORD": "s3cret"}), BY)
            await store.restart("web", BY)
            for view in COLUMNS:
                assert "s3cret" not in str(sql(tmp_path, f"SELECT * FROM {view}"))
            assert sql(tmp_path, "SELECT DISTINCT spec ->> '$.environment.PASSWORD' FROM v_revisions") == [("***",)]
            assert (await store.revisions("web"))[0]["spec"]["environment"] == {"PASSWORD": "***"}
        async with opened(tmp_path) as store:
            assert store.heads["web"].revision.pkg.environment == {"PASSWORD": "s3cret"}

    asyncio.run(scenario())


def test_the_database_can_be_read_after_the_agent_has_stopped_and_is_one_private_file_then(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as store:
            await store.apply(submission(), BY)
            for file in tmp_path.iterdir():
                assert stat.S_IMODE(file.stat().st_mode) == 0o600

    asyncio.run(scenario())
    assert [file.name for file in tmp_path.iterdir()] == ["agent.db"]
    assert sql(tmp_path, "SELECT app FROM v_status") == [("web",)]


def test_dates_work_with_the_date_functions(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as store:
            await store.apply(submission(), BY)
            assert sql(tmp_path, "SELECT strftime('%Y', at), julianday(at) > 0 FROM v_health") == [("2026", 1)]

    asyncio.run(scenario())


def test_long_words_are_clipped_in_the_history(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as store:
            await store.apply(submission(), BY)
            await store.record(outcome(store, health=Health(0, Status.FAILED, "x" * 100_000)))
            assert sql(tmp_path, "SELECT max(length(msg)) FROM v_health") == [(4096,)]

    asyncio.run(scenario())
