"""Applying, and what status says of it."""

from __future__ import annotations

import asyncio
from datetime import datetime
from itertools import pairwise

import pytest
from aiohttp import ClientSession
from msgspec.structs import replace

from boreas_agent.model import Attempts, Health, Status
from boreas_agent.store.values import Outcome
from tests.unit.api_harness import RUNNING, SEED, Api, pkg, run, seed, serving
from tests.waiting import eventually_async

DEPLOYING = Health(20, Status.DEPLOYING, "starting")
FAILED = Health(0, Status.FAILED, "exited with code 1 three times")


def test_the_documents_example_is_recorded_answered_with_200_and_wakes_the_reconciler() -> None:
    async def test(api: Api) -> None:
        answer = await api.apply(SEED)
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "application/json"
        message = answer.json.pop("message")
        assert message
        assert answer.json == {
            "success": True,
            "message": message,
            "app": "my-app",
            "version": "v1.0.0",
            "revision": 1,
            "changed": True,
        }
        assert api.woken == ["my-app"]
        head = api.store.head("my-app")
        assert head is not None
        assert head.revision.submitted_by == "api 127.0.0.1"

    run(test)


def test_the_same_again_changes_nothing_and_wakes_nobody_while_another_version_is_a_new_revision() -> None:
    async def test(api: Api) -> None:
        await api.apply(SEED)
        again = (await api.apply(SEED)).json
        assert (again["success"], again["revision"], again["changed"]) == (True, 1, False)
        assert api.woken == ["my-app"]
        other = (await api.apply(seed(version="v1.0.1"))).json
        assert (other["version"], other["revision"], other["changed"]) == ("v1.0.1", 2, True)
        forced = (await api.apply(seed(version="v1.0.1", force=True))).json
        assert (forced["revision"], forced["changed"]) == (3, True)
        assert api.woken == ["my-app"] * 3

    run(test)


def test_package_short_port_names_and_empty_lists_are_the_same_request() -> None:
    async def test(api: Api) -> None:
        await api.apply(SEED)
        other_words = pkg(ports=[{"host": 8080, "container": 8080}], artifacts=[], health={}, resources=None)
        other_words["package"] = other_words.pop("pkg")
        answer = await api.apply(other_words)
        assert (answer.status, answer.json["changed"]) == (200, False)

    run(test)


def test_an_unknown_field_is_refused_by_its_path() -> None:
    async def test(api: Api) -> None:
        before = api.everything()
        answer = await api.apply(pkg(ports=[{"host_port": 99999, "container_port": 80, "name": "http"}], imagee="x") | {"owner": "me"})
        assert answer.status == 422
        assert sorted(answer.fields) == ["owner", "pkg.imagee", "pkg.ports[0].host_port", "pkg.ports[0].name"]
        assert answer.json["message"].endswith("(and 3 more)")
        assert api.everything() == before
        assert api.woken == []

    run(test)


def test_from_the_moment_of_the_answer_status_speaks_of_the_new_revision_below_80() -> None:
    async def test(api: Api) -> None:
        await api.apply(SEED)
        await api.is_now("my-app", RUNNING)
        assert (await api.get("/v1/status/my-app")).json["healthy"]["level"] == 100
        await api.apply(seed(version="v2"))
        now = (await api.get("/v1/status/my-app")).json
        assert (now["version"], now["revision"], now["status"]) == ("v2", 2, "pending")
        assert now["healthy"]["level"] < 80

    run(test)


def test_the_status_object_says_everything_about_an_app() -> None:
    async def test(api: Api) -> None:
        await api.apply(pkg(ports=[], replicas=3))
        await api.is_now("my-app", RUNNING)
        status = (await api.get("/v1/status/my-app")).json
        updated, deployment = status.pop("updated"), status.pop("deployment")
        assert [deployment[name] for name in ("kind", "phase", "outcome", "rollback_to")] == ["apply", "pending", None, None]
        assert datetime.fromisoformat(updated).utcoffset() is not None
        assert len(updated) == len("2024-01-01T00:00:00.000Z")
        assert updated.endswith("Z")
        assert status == {
            "app": "my-app",
            "version": "v1.0.0",
            "healthy": {"level": 100, "msg": "Running"},
            "status": "running",
            "revision": 1,
            "replicas": 3,
            "type": "docker",
            "kind": "apply",
            "restarts": 0,
            "usage": None,
            "held": None,
            "running_revision": 1,
            "running_version": "v1.0.0",
            "blocked": None,
            "image": {"reference": "my-app:v1.0.0", "id": None, "digest": None},
        }
        assert (await api.get("/v1/status")).json["apps"] == [status | {"updated": updated, "deployment": deployment}]

    run(test)


def test_the_node_is_as_healthy_as_the_worst_app_that_is_not_stopped_held_or_being_removed() -> None:
    async def test(api: Api) -> None:
        async def node() -> tuple[int, str]:
            healthy = (await api.get("/v1/status")).json["healthy"]
            return healthy["level"], healthy["msg"]

        assert await node() == (100, "0 of 0 apps healthy")
        healths = {
            "a": RUNNING,
            "b": Health(85, Status.RUNNING, "restarted not long ago"),
            "c": Health(60, Status.DEGRADED, "1 of 2 ready"),
            "stopped": Health(0, Status.STOPPED, "0 replicas"),
            "held": FAILED,
            "leaving": FAILED,
        }
        for app, health in healths.items():
            await api.apply(seed(app=app))
            await api.is_now(app, health)
        await api.send("POST", "/v1/apps/held/hold")
        await api.send("DELETE", "/v1/apps/leaving")
        assert await node() == (60, "2 of 3 apps healthy")
        assert [app["app"] for app in (await api.get("/v1/status")).json["apps"]] == sorted(healths)

    run(test)


# --- wait ------------------------------------------------------------------------------------------


def test_a_bad_wait_is_refused_before_anything_is_recorded() -> None:
    async def test(api: Api) -> None:
        for wait in ("NaN", "-1", "abc", "", "1e3", "inf", "0x10", "1_000", "%00", "%ff", "9" * 400, "%201", "٣"):
            answer = await api.apply(SEED, f"?wait={wait}")
            assert (answer.status, answer.fields) == (422, ["wait"]), wait
        assert api.everything() == {}

    run(test)


def test_a_wait_that_is_over_answers_with_how_it_is_by_then() -> None:
    async def test(api: Api) -> None:
        answer = (await api.apply(SEED, "?wait=0")).json
        assert (answer["changed"], answer["revision"], answer["status"]) == (True, 1, "pending")
        assert 0 <= answer["healthy"]["level"] < 80
        assert (await api.apply(SEED, "?wait=0.05")).json["status"] == "pending"

    run(test)


@pytest.mark.parametrize(
    "end",
    [
        RUNNING,
        FAILED,
        Health(100, Status.COMPLETED, "exited with code 0"),
        Health(0, Status.STOPPED, "0 replicas"),
        Health(82, Status.RUNNING, "blemish"),
    ],
)
def test_a_wait_ends_as_soon_as_the_app_has_converged_or_failed(end: Health) -> None:
    async def test(api: Api) -> None:
        waiting = asyncio.create_task(api.apply(SEED, "?wait=3600"))
        await eventually_async(lambda: _known(api))
        for health in (DEPLOYING, Health(50, Status.RUNNING, "1 of 2 ready"), end):
            assert not waiting.done()
            await api.is_now("my-app", health)
        answer = (await asyncio.wait_for(waiting, 10)).json
        assert (answer["healthy"], answer["status"]) == ({"level": end.level, "msg": end.msg}, end.status)
        assert (answer["revision"], answer["changed"]) == (1, True)

    run(test)


async def _known(api: Api) -> bool:
    return api.store.head("my-app") is not None


def test_a_wait_for_what_has_converged_already_answers_at_once() -> None:
    async def test(api: Api) -> None:
        await api.apply(SEED)
        await api.is_now("my-app", RUNNING)
        answer = (await asyncio.wait_for(api.apply(SEED, "?wait=3600"), 10)).json
        assert (answer["changed"], answer["healthy"]["level"], answer["status"]) == (False, 100, "running")

    run(test)


def test_a_wait_ends_when_a_newer_revision_supersedes_it_and_never_lends_it_the_newer_ones_health() -> None:
    async def test(api: Api) -> None:
        waiting = asyncio.create_task(api.apply(SEED, "?wait=3600"))
        await eventually_async(lambda: _known(api))
        await api.apply(seed(version="v2"))
        answer = (await asyncio.wait_for(waiting, 10)).json
        assert (answer["version"], answer["revision"]) == ("v1.0.0", 1)
        assert answer["healthy"] == {"level": 0, "msg": "superseded by revision 2"}
        assert answer["status"] == "failed"

    run(test)


def test_a_wait_ends_when_the_app_is_removed() -> None:
    async def test(api: Api) -> None:
        waiting = asyncio.create_task(api.apply(SEED, "?wait=3600"))
        await eventually_async(lambda: _known(api))
        await api.send("DELETE", "/v1/apps/my-app")
        answer = (await asyncio.wait_for(waiting, 10)).json
        assert (answer["healthy"]["level"], answer["status"]) == (0, "removing")

    run(test)


def test_a_wait_does_not_outlive_the_agent() -> None:
    async def test() -> None:
        async with ClientSession() as patient:
            async with serving() as api:
                waiting = asyncio.create_task(patient.post(f"{api.url}/v1/apply?wait=3600", json=SEED))
                await eventually_async(lambda: _known(api))
            async with await asyncio.wait_for(waiting, 10) as answer:
                assert (answer.status, (await answer.json())["status"]) == (200, "pending")

    asyncio.run(test())


def test_a_wait_does_not_outlive_its_client() -> None:
    async def test() -> None:
        async with serving() as api:
            waiting = asyncio.create_task(api.apply(SEED, "?wait=3600"))
            await eventually_async(lambda: _known(api))
            waiting.cancel()
            handlers = [task for task in asyncio.all_tasks() if "RequestHandler._handle_request" in repr(task)]
            assert handlers
            await asyncio.wait_for(asyncio.wait(handlers), 10)

    asyncio.run(test())


def test_many_at_once_are_all_recorded_with_revisions_that_count_up() -> None:
    async def test(api: Api) -> None:
        answers = await asyncio.gather(*(api.apply(seed(version=f"v{n}")) for n in range(40)))
        revisions = sorted(answer.json["revision"] for answer in answers)
        assert all(after == before + 1 for before, after in pairwise(revisions))
        assert len(api.woken) == 40

    run(test)


def test_restarts_are_counted_over_all_replicas() -> None:
    async def test(api: Api) -> None:
        await api.apply(SEED)
        head = api.store.head("my-app")
        assert head is not None
        attempts = {n: replace(Attempts(n, head.revision.instance_hash), restarts=n + 1) for n in range(3)}
        await api.store.record(Outcome("my-app", 1, RUNNING, attempts))
        assert (await api.get("/v1/status/my-app")).json["restarts"] == 6

    run(test)
