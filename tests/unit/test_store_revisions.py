"""What applying, restarting, removing and adopting record."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from msgspec.structs import replace

from boreas_agent import spec
from boreas_agent.errors import Conflict, NotFound
from boreas_agent.model import Attempts, Deadline, Health, Revision, Status
from boreas_agent.store import gone
from boreas_agent.store.store import Store
from tests.unit.store_harness import BY, kinds, opened, outcome, proven, sql, submission
from tests.world import FakeClock


def test_the_first_apply_is_revision_1_of_its_own_generation_and_pending(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as store:
            receipt = await store.apply(submission(), BY)
            assert (receipt.revision, receipt.changed, receipt.app, receipt.version) == (1, True, "web", "v1")
            head = store.heads["web"]
            assert (head.revision.kind, head.revision.generation, head.revision.submitted_by) == ("apply", 1, BY)
            assert head.revision.instance_hash == spec.instance_hash("v1", head.revision.pkg, 1, 1)
            assert head.health == Health(1, Status.PENDING, "revision 1 recorded")

    asyncio.run(scenario())


def test_the_same_again_is_unchanged_and_commits_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as store:
            await store.apply(submission(), BY)
            commits = store.commits
            again = await store.apply(submission(), BY)
            assert (again.revision, again.changed) == (1, False)
            assert again.message.startswith("unchanged")
            assert store.commits == commits

    asyncio.run(scenario())


def test_another_version_is_a_new_revision_of_the_same_generation(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as store:
            await store.apply(submission(), BY)
            assert (await store.apply(submission(version="v2"), BY)).revision == 2
            assert store.heads["web"].revision.generation == 1

    asyncio.run(scenario())


def test_force_makes_a_new_generation_of_the_same_spec(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as store:
            await store.apply(submission(), BY)
            before = store.heads["web"].revision
            receipt = await store.apply(submission(force=True), BY)
            after = store.heads["web"].revision
            assert (receipt.revision, receipt.changed, after.generation) == (2, True, 2)
            assert after.spec_hash == before.spec_hash
            assert after.instance_hash != before.instance_hash

    asyncio.run(scenario())


def test_a_restart_replaces_instances_and_applying_the_same_afterwards_is_unchanged(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as store:
            await store.apply(submission(), BY)
            before = store.heads["web"].revision
            assert (await store.restart("web", BY)).revision == 2
            after = store.heads["web"].revision
            assert (after.kind, after.generation, after.version, after.pkg) == ("restart", 2, "v1", before.pkg)
            assert after.instance_hash != before.instance_hash
            assert not (await store.apply(submission(), BY)).changed

    asyncio.run(scenario())


def test_what_is_not_there_cannot_be_restarted_removed_held_or_released(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as store:
            for asked in (store.restart("web", BY), store.remove("web", BY), store.hold("web", BY, "", None), store.release("web", BY)):
                with pytest.raises(NotFound, match="there is no app web"):
                    await asked
            assert await store.events(None) == []

    asyncio.run(scenario())


def test_removal_is_a_revision_and_asking_twice_changes_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as store:
            await store.apply(submission(), BY)
            assert (await store.remove("web", BY)).revision == 2
            head = store.heads["web"]
            assert head.revision.removed
            assert (head.health.level, head.health.status) == (0, Status.REMOVING)
            again = await store.remove("web", BY)
            assert (again.revision, again.changed) == (2, False)
            with pytest.raises(Conflict, match="being removed"):
                await store.restart("web", BY)

    asyncio.run(scenario())


def test_applying_while_it_is_being_removed_begins_a_new_generation(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as store:
            await store.apply(submission(), BY)
            await store.remove("web", BY)
            assert (await store.apply(submission(), BY)).revision == 3
            assert store.heads["web"].revision.generation == 3

    asyncio.run(scenario())


def test_revision_numbers_go_on_after_an_app_is_gone_also_across_a_restart_of_the_agent(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as store:
            await store.apply(submission(), BY)
            await store.remove("web", BY)
            await store.record(outcome(store, gone=True))
            assert store.head("web") is None
            assert await store.newest("web") == 2
        async with opened(tmp_path) as store:
            assert "web" not in store.heads
            assert await store.newest("web") == 2
            assert (await store.apply(submission(), BY)).revision == 3
            assert [row["revision"] for row in await store.revisions("web")] == [3, 2, 1]
            assert await store.newest("never") == 0

    asyncio.run(scenario())


def test_revision_numbers_go_on_also_for_apps_gone_so_long_ago_that_only_the_database_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gone, "MOST", 2)
    apps = [f"app-{number}" for number in range(4)]

    async def come_and_go(store: Store, revision: int) -> None:
        for app in apps:
            assert (await store.apply(submission(app), BY)).revision == revision
            await store.remove(app, BY)
            await store.record(outcome(store, app, gone=True))

    async def scenario() -> None:
        async with opened(tmp_path) as store:
            await come_and_go(store, revision=1)
            await come_and_go(store, revision=3)
        async with opened(tmp_path) as store:
            receipts = await asyncio.gather(*(store.apply(submission(app), BY) for app in ["new", *apps]))
            assert [receipt.revision for receipt in receipts] == [1, 5, 5, 5, 5]

    asyncio.run(scenario())


def test_an_app_that_is_not_to_be_removed_cannot_be_gone(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as store:
            await store.apply(submission(), BY)
            with pytest.raises(Conflict, match="cannot forget web"):
                await store.record(outcome(store, gone=True))
            assert "web" in store.heads

    asyncio.run(scenario())


def test_status_says_what_still_serves_while_a_new_revision_is_on_its_way(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as store:
            await store.apply(submission(), BY)
            await proven(store)
            await store.apply(submission(version="v2"), BY)
            assert store.heads["web"].health == Health(50, Status.PENDING, "revision 2 recorded; revision 1 still serves")
            await store.apply(submission(version="v3"), BY)
            assert store.heads["web"].health == Health(50, Status.PENDING, "revision 3 recorded; an older revision still serves")

    asyncio.run(scenario())


def test_a_finished_script_serves_nobody_while_its_next_revision_is_pending(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as store:
            job = {"type": "script", "command": ["true"]}
            script = spec.parse_submission({"app": "web", "version": "v1", "pkg": job})
            await store.apply(script, BY)
            await store.record(outcome(store, health=Health(100, Status.COMPLETED, "Completed")))
            await store.apply(spec.parse_submission({"app": "web", "version": "v2", "pkg": job}), BY)
            assert store.heads["web"].health.level == 1

    asyncio.run(scenario())


def test_failures_of_instances_are_kept_while_they_stay_the_same_but_a_new_revision_has_to_prove_itself(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as store:
            await store.apply(submission(), BY)
            made_of = store.heads["web"].revision.instance_hash
            attempts = {0: Attempts(0, made_of, failures=2, not_before=Deadline(5.0, 4.0, "boot-1"))}
            await store.record(outcome(store, proven=made_of, attempts=attempts))
            await store.apply(submission(replicas=3), BY)
            assert (store.heads["web"].proven, dict(store.heads["web"].attempts)) == ("", attempts)
            await store.restart("web", BY)
            assert (store.heads["web"].proven, dict(store.heads["web"].attempts)) == ("", {})

    asyncio.run(scenario())


def test_only_revisions_that_never_became_healthy_are_superseded(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as store:
            await store.apply(submission(version="v1"), BY)
            await proven(store)
            for version in ("v2", "v3", "v4"):
                await store.apply(submission(version=version), BY)
            superseded = [event["revision"] for event in await store.events("web") if event["kind"] == "Superseded"]
            assert superseded == [2, 3]

    asyncio.run(scenario())


def test_an_app_that_was_healthy_and_fails_now_is_not_called_superseded(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as store:
            await store.apply(submission(), BY)
            await proven(store)
            await store.record(outcome(store, health=Health(0, Status.FAILED, "crash loop")))
            await store.apply(submission(version="v2"), BY)
            assert "Superseded" not in await kinds(store)

    asyncio.run(scenario())


def test_events_name_who_asked(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as store:
            await store.apply(submission(), "alice")
            await store.restart("web", "bob")
            await store.remove("web", "carol")
            told = {event["kind"]: event["message"] for event in await store.events("web")}
            assert "alice" in told["Applied"]
            assert "bob" in told["Restarted"]
            assert "carol" in told["RemoveRequested"]

    asyncio.run(scenario())


def test_concurrent_applies_to_one_app_take_one_revision_number_each(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as store:
            receipts = await asyncio.gather(*(store.apply(submission(version=f"v{n}"), BY) for n in range(50)))
            assert sorted(receipt.revision for receipt in receipts) == list(range(1, 51))
            assert store.heads["web"].revision.revision == 50
            assert len(sql(tmp_path, "SELECT * FROM v_revisions")) == 50

    asyncio.run(scenario())


def test_a_revision_found_on_an_instance_is_adopted_by_an_empty_database(tmp_path: Path) -> None:
    found = _revision(7)

    async def scenario() -> None:
        async with opened(tmp_path) as store:
            assert await store.adopt(found)
            assert store.heads["web"].revision == found
            assert await kinds(store) == ["Adopted"]
            assert (await store.apply(submission(version="v9"), BY)).revision == 8

    asyncio.run(scenario())


def test_a_revision_as_old_as_the_recorded_one_is_not_adopted_nor_one_older_than_a_removal(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as store:
            await store.apply(submission(), BY)
            assert not await store.adopt(_revision(1))
            await store.remove("web", BY)
            assert not await store.adopt(_revision(2))
            await store.record(outcome(store, gone=True))
            assert not await store.adopt(_revision(2))
            assert await store.adopt(_revision(3))

    asyncio.run(scenario())


def test_updated_moves_with_status_and_level_only(tmp_path: Path) -> None:
    async def scenario() -> None:
        clock = FakeClock()
        async with opened(tmp_path, clock) as store:
            await store.apply(submission(), BY)
            first = store.heads["web"].updated
            clock.wall = clock.wall.replace(hour=5)
            await store.record(outcome(store, health=Health(1, Status.PENDING, "pulling the image")))
            assert store.heads["web"].updated == first
            await store.record(outcome(store, health=Health(20, Status.DEPLOYING, "starting")))
            assert store.heads["web"].updated == clock.wall

    asyncio.run(scenario())


def _revision(number: int) -> Revision:
    sent = submission()
    made_of = spec.instance_hash("v1", sent.pkg, 1, number)
    return replace(
        Revision("web", number, "v1", "apply", 1, sent.pkg, sent.spec_hash, made_of, FakeClock().wall, "somebody"),
    )
