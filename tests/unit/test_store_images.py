"""Which bytes an app ran, and which images the agent has pulled, survive a restart."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from boreas_agent.model import Deployment, Event, PulledImage, Stage
from boreas_agent.store.store import Store
from boreas_agent.store.values import HistoryLimits
from tests.unit.store_harness import BY, opened, outcome, sql, submission
from tests.world import FakeClock

FIRST, SECOND = ("sha256:1", "web@sha256:a"), ("sha256:2", "web@sha256:b")


def _deployment(store: Store) -> Deployment:
    found = store.heads["web"].deployment
    assert found is not None
    return found


def _ran(store: Store) -> tuple[str, str]:
    return _deployment(store).image, _deployment(store).digest


async def _succeed(store: Store, clock: FakeClock, ran: tuple[str, str]) -> None:
    """The head's deployment comes to its end, having run these bytes."""
    of = _deployment(store)
    done = replace(of, stages=(*of.stages, (Stage.SUCCEEDED, clock.now())), image=ran[0], digest=ran[1])
    await store.record(outcome(store, proven=store.heads["web"].revision.instance_hash, deployment=done))


async def _two_revisions(store: Store, clock: FakeClock, **pkg: Any) -> None:
    await store.apply(submission(version="v1", **pkg), BY)
    await _succeed(store, clock, FIRST)
    await store.apply(submission(version="v2", **pkg), BY)
    assert _ran(store) == ("", "")
    await _succeed(store, clock, SECOND)


@pytest.mark.parametrize("to", [None, 1])
def test_a_rollback_asks_for_the_bytes_that_the_older_revision_ran(tmp_path: Path, to: int | None) -> None:
    async def scenario() -> None:
        clock = FakeClock()
        async with opened(tmp_path, clock) as store:
            await _two_revisions(store, clock)
            await store.apply(submission(version="v3"), BY)
            await _succeed(store, clock, ("sha256:3", ""))
        async with opened(tmp_path, clock) as store:
            assert store.heads["web"].good is not None
            assert (store.heads["web"].good.image, store.heads["web"].good.digest) == SECOND
            await store.rollback("web", to, BY)
            assert _ran(store) == (SECOND if to is None else FIRST)
            assert sql(tmp_path, "SELECT revision, image, digest FROM v_deployments ORDER BY id")[:3] == [
                (1, *FIRST),
                (2, *SECOND),
                (3, "sha256:3", None),
            ]

    asyncio.run(scenario())


def test_more_replicas_and_a_restart_run_the_same_bytes_and_force_finds_out_anew(tmp_path: Path) -> None:
    async def scenario() -> None:
        clock = FakeClock()
        async with opened(tmp_path, clock) as store:
            await _two_revisions(store, clock)
            await store.apply(submission(version="v2", replicas=3), BY)
            assert _ran(store) == SECOND
            await store.restart("web", BY)
            assert _ran(store) == SECOND
            await store.apply(submission(version="v2", replicas=3, force=True), BY)
            assert _ran(store) == ("", "")

    asyncio.run(scenario())


def test_a_restart_under_always_finds_out_anew_and_a_rollback_does_not(tmp_path: Path) -> None:
    async def scenario() -> None:
        clock = FakeClock()
        async with opened(tmp_path, clock) as store:
            await _two_revisions(store, clock, pull_policy="always")
            await store.restart("web", BY)
            assert _ran(store) == ("", "")
            await store.rollback("web", 1, BY)
            assert _ran(store) == FIRST

    asyncio.run(scenario())


def test_a_pulled_image_is_on_record_until_it_is_removed_and_history_then(tmp_path: Path) -> None:
    async def scenario() -> None:
        clock = FakeClock()
        pulled = [PulledImage(f"sha256:{name}", (f"{name}:1",), clock.now()) for name in "ab"]
        async with opened(tmp_path, clock) as store:
            await store.record_images(pulled)
            await store.record_images([replace(pulled[0], idle=5.0, names=("a:1", "a:2"))])
        async with opened(tmp_path, clock) as store:
            assert sorted(await store.images(), key=lambda one: one.id) == [replace(pulled[0], idle=5.0, names=("a:1", "a:2")), pulled[1]]
            await store.record_images([replace(pulled[0], removed_at=clock.now())], [Event("ImageRemoved", "removed")])
            assert await store.images() == [pulled[1]]
            await store.record_images([pulled[0]])  # pulled again
            assert len(await store.images()) == 2
            assert sql(tmp_path, "SELECT names, idle_seconds, removed_at FROM v_images ORDER BY names") == [
                ("a:1", 0.0, None),
                ("b:1", 0.0, None),
            ]
            assert sql(tmp_path, "SELECT kind FROM v_events WHERE app IS NULL") == [("ImageRemoved",)]

    asyncio.run(scenario())


def test_of_images_only_those_that_are_removed_are_forgotten_with_the_history(tmp_path: Path) -> None:
    async def scenario() -> None:
        clock = FakeClock()
        async with opened(tmp_path, clock, HistoryLimits(rows=1, days=30)) as store:
            pulled = [PulledImage(f"sha256:{name}", (f"{name}:1",), clock.now()) for name in "abc"]
            await store.record_images([replace(pulled[0], removed_at=clock.now()), *pulled[1:]])
            await store.prune()
            assert sql(tmp_path, "SELECT names FROM v_images ORDER BY names") == [("b:1",), ("c:1",)]

    asyncio.run(scenario())
