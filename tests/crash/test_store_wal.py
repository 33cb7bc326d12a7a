"""The write-ahead log stays small, and shrinks again after a reader from outside kept it."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

from boreas_agent.store.store import Store
from boreas_agent.store.wal import SIZE_LIMIT
from tests.unit.store_harness import BY, opened, submission


async def _write(store: Store, version: str) -> None:
    """Some five megabytes."""
    fill = {"FILL": "x" * 10_000}
    await asyncio.gather(*(store.apply(submission(f"app-{n}", version, environment=fill), BY) for n in range(400)))


def _log(path: Path) -> int:
    return (path / "agent.db-wal").stat().st_size


def test_the_log_stays_small_under_writes(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as store:
            for n in range(6):
                await _write(store, f"v{n}")
            assert (tmp_path / "agent.db").stat().st_size > 5 * SIZE_LIMIT
            assert _log(tmp_path) < 4 * SIZE_LIMIT

    asyncio.run(scenario())


def test_a_long_reader_makes_the_log_grow_and_it_shrinks_after_the_reader_has_ended(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as store:
            await _write(store, "v0")
            with closing(sqlite3.connect(tmp_path / "agent.db", isolation_level=None)) as reader:
                reader.execute("BEGIN")
                before = reader.execute("SELECT count(*) FROM v_revisions").fetchone()
                for n in range(1, 6):
                    await _write(store, f"v{n}")
                assert _log(tmp_path) > 4 * SIZE_LIMIT
                assert reader.execute("SELECT count(*) FROM v_revisions").fetchone() == before
                await store.prune()
                assert _log(tmp_path) > 4 * SIZE_LIMIT
            await store.prune()
            assert _log(tmp_path) <= SIZE_LIMIT
            assert len(store.heads) == 400

    asyncio.run(scenario())


def test_the_log_shrinks_by_writing_alone_after_a_long_reader(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as store:
            with closing(sqlite3.connect(tmp_path / "agent.db", isolation_level=None)) as reader:
                reader.execute("BEGIN")
                reader.execute("SELECT count(*) FROM v_revisions").fetchone()
                for n in range(6):
                    await _write(store, f"v{n}")
                grown = _log(tmp_path)
            for n in range(6, 9):
                await _write(store, f"v{n}")
            assert _log(tmp_path) < grown / 2

    asyncio.run(scenario())
