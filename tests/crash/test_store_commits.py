"""Commits: shared by those who come together, and what happens when one fails."""

from __future__ import annotations

import asyncio
import resource
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from boreas_agent.clock import SystemClock
from boreas_agent.errors import CannotRecord, Invalid, NotFound
from boreas_agent.model import Event
from boreas_agent.store.values import Receipt
from tests.unit.store_harness import BY, opened, sql, submission
from tests.world import FakeClock


@contextmanager
def no_room(beyond: int) -> Iterator[None]:
    """No file of this process may grow beyond ``beyond`` bytes, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (beyond, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_concurrent_requests_share_commits(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path, SystemClock()) as store:
            before = store.commits
            await asyncio.gather(*(store.apply(submission(f"app-{n}"), BY) for n in range(500)))
            assert store.commits - before < 50
            assert len(store.heads) == 500

    asyncio.run(scenario())


def test_of_requests_that_share_a_commit_only_the_bad_one_fails(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as store:
            await store.apply(submission(), BY)
            results = await asyncio.gather(
                store.apply(submission("good-1"), BY),
                store.hold("web", "alice", "not Unicode: \ud800", None),
                store.restart("nobody", BY),
                store.apply(submission("good-2"), BY),
                return_exceptions=True,
            )
            assert [type(result) for result in results] == [Receipt, Invalid, NotFound, Receipt]
            assert set(store.heads) == {"web", "good-1", "good-2"}
            assert store.heads["web"].hold is None
            assert store.writable()

    asyncio.run(scenario())


def test_on_a_full_disk_nothing_is_acknowledged_nothing_is_published_and_all_works_again_once_there_is_room(tmp_path: Path) -> None:
    async def scenario() -> None:
        clock = FakeClock()
        async with opened(tmp_path, clock) as store:
            await store.apply(submission(), BY)
            before = dict(store.heads)
            with no_room(beyond=(tmp_path / "agent.db-wal").stat().st_size):
                results = await asyncio.gather(
                    store.apply(submission(version="v2"), BY),
                    store.apply(submission("new"), BY),
                    store.record_events([Event("Tick", "tock")]),
                    return_exceptions=True,
                )
                assert [type(result) for result in results] == [CannotRecord] * 3
                assert str(results[0]).startswith(f"cannot record changes in {tmp_path / 'agent.db'}: ")
                assert dict(store.heads) == before
                assert not store.writable()
                with pytest.raises(CannotRecord):
                    await store.check()
                assert not (await store.apply(submission(), BY)).changed
            await store.check()
            assert store.writable()
            assert (await store.apply(submission(version="v2"), BY)).revision == 2
        assert sql(tmp_path, "SELECT app, revision FROM v_revisions") == [("web", 1), ("web", 2)]

    asyncio.run(scenario())


def test_while_another_program_holds_a_lock_requests_are_refused_and_later_work_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as store:
            with closing(sqlite3.connect(tmp_path / "agent.db", isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                with pytest.raises(CannotRecord, match="another program holds a lock"):
                    await store.apply(submission(), BY)
                other.execute("ROLLBACK")
            assert (await store.apply(submission(), BY)).revision == 1

    asyncio.run(scenario())


def test_another_database_put_in_its_place_is_neither_used_nor_touched(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as store:
            (tmp_path / "agent.db").rename(tmp_path / "moved")
            (tmp_path / "agent.db").write_text("another")
            for _ in range(2):
                with pytest.raises(CannotRecord, match="was replaced"):
                    await store.apply(submission(), BY)
            assert (tmp_path / "agent.db").read_text() == "another"
            (tmp_path / "moved").replace(tmp_path / "agent.db")
            assert (await store.apply(submission(), BY)).revision == 1

    asyncio.run(scenario())


def _garbage(file: Path) -> None:
    size = file.stat().st_size
    file.write_bytes(b"\xa5" * size)


def _half(file: Path) -> None:
    with file.open("r+b") as opened_file:
        opened_file.truncate(file.stat().st_size // 2)


@pytest.mark.parametrize(
    "damage", [_garbage, _half, lambda file: file.write_bytes(b""), Path.unlink], ids=["garbage", "half", "emptied", "deleted"]
)
def test_a_database_damaged_under_a_running_agent_is_refused_once_then_written_anew_from_memory(
    tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as store:
            for n in range(300):
                await store.apply(submission(f"app-{n % 30}", f"v{n}"), BY)
            await store.events()
            before = dict(store.heads)
            damage(tmp_path / "agent.db")
            with pytest.raises(CannotRecord, match=r"cannot record changes in .*agent\.db: .*written anew from memory, try again"):
                await store.apply(submission(version="refused"), BY)
            assert dict(store.heads) == before
            assert (await store.apply(submission(), BY)).revision == 1
            assert store.writable()
            assert [event["kind"] for event in await store.events()] == ["DatabaseDamaged", "Applied"]
        async with opened(tmp_path) as store:
            assert {app: head for app, head in store.heads.items() if app != "web"} == before
            assert store.heads["web"].revision.version == "v1"

    asyncio.run(scenario())
    assert sql(tmp_path, "PRAGMA integrity_check") == [("ok",)]


def test_a_checkpoint_of_another_program_is_no_damage(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as store:
            await store.apply(submission(), BY)
            with closing(sqlite3.connect(tmp_path / "agent.db")) as other:
                other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            assert (await store.apply(submission(version="v2"), BY)).revision == 2

    asyncio.run(scenario())


def test_asking_whether_a_commit_is_possible_costs_at_most_one_every_few_seconds(tmp_path: Path) -> None:
    async def scenario() -> None:
        clock = FakeClock()
        async with opened(tmp_path, clock) as store:
            clock.uptime += 60
            before = store.commits
            for _ in range(10):
                await store.check()
            assert store.commits == before + 1

    asyncio.run(scenario())


def test_a_closed_store_refuses_and_closing_finishes_what_was_asked_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as store:
            asked = [asyncio.ensure_future(store.apply(submission(f"app-{n}"), BY)) for n in range(100)]
            await asyncio.wait(asked[:1])
            await store.close()
            assert all(receipt.changed for receipt in await asyncio.gather(*asked))
            with pytest.raises(CannotRecord, match="shutting down"):
                await store.apply(submission(), BY)
        assert sql(tmp_path, "SELECT count(*) FROM v_status") == [(100,)]

    asyncio.run(scenario())


def test_a_caller_that_gives_up_harms_nobody(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as store:
            asked = [asyncio.ensure_future(store.apply(submission(f"app-{n}"), BY)) for n in range(10)]
            await asyncio.wait(asked, timeout=0)
            asked[3].cancel()
            results = await asyncio.gather(*asked, return_exceptions=True)
            assert sum(isinstance(result, Receipt) for result in results) == 9

    asyncio.run(scenario())
