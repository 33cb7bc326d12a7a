"""Rollback, deployments and plan over HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

from boreas_agent.model import Deployment, Health, InstanceName, Phase, Stage, Status
from boreas_agent.records import encode
from boreas_agent.store.values import Outcome
from tests.unit.api_harness import RUNNING, Api, run
from tests.world import Thing

DEGRADED = Health(70, Status.DEGRADED, "revision 1 (v1) serves again")


def spec(version: str = "v1", **pkg: Any) -> dict[str, Any]:
    return {"app": "web", "version": version, "pkg": {"type": "docker", "image": f"web:{version}", **pkg}}


async def ends(api: Api, stage: Stage, reason: str = "", health: Health = RUNNING) -> None:
    """The head's deployment comes to an end, as a pass would record it."""
    head = api.store.heads["web"]
    deployment = head.deployment
    assert deployment is not None
    back = ((Stage.ROLLING_BACK, head.updated),) if stage is Stage.ROLLED_BACK else ()
    stages = (*deployment.stages, *back, (stage, head.updated))
    ended = Deployment(deployment.revision, deployment.version, deployment.kind, stages, reason, image="sha256:1")
    proven = head.revision.instance_hash if stage is Stage.SUCCEEDED else ""
    await api.store.record(Outcome("web", head.revision.revision, health, proven=proven, deployment=ended))


async def two_versions(api: Api) -> None:
    await api.apply(spec())
    await ends(api, Stage.SUCCEEDED)
    await api.apply(spec("v2"))


def there(api: Api, replica: int = 0) -> None:
    """A running instance of the app's head."""
    revision = api.store.heads["web"].revision
    name = InstanceName("web", revision.revision, replica)
    api.world.things[name] = Thing(name, "docker", revision.version, revision.instance_hash, encode(revision), "me", Phase.RUNNING, 1)


def test_a_rollback_asks_for_the_older_version_in_a_new_revision() -> None:
    async def test(api: Api) -> None:
        await two_versions(api)
        api.woken.clear()
        answer = await api.send("POST", "/v1/apps/web/rollback", {})
        assert (answer.status, answer.json) == (
            200,
            {"success": True, "message": "revision 3 recorded", "app": "web", "version": "v1", "revision": 3, "changed": True},
        )
        assert api.woken == ["web"]
        status = (await api.get("/v1/status/web")).json
        assert (status["version"], status["kind"]) == ("v1", "rollback")
        again = await api.send("POST", "/v1/apps/web/rollback", {"to": 1})
        assert (again.status, again.json["changed"], again.json["revision"]) == (200, False, 3)
        to = await api.send("POST", "/v1/apps/web/rollback", {"to": 2})
        assert (to.status, to.json["version"], to.json["revision"]) == (200, "v2", 4)

    run(test)


def test_a_rollback_to_nowhere_is_refused_and_changes_nothing() -> None:
    async def test(api: Api) -> None:
        assert (await api.send("POST", "/v1/apps/web/rollback", {})).status == 404
        await api.apply(spec())
        before = api.everything()
        for body, status, words in (
            ({}, 409, "no older revision of it was healthy"),
            ({"to": 7}, 409, "cannot roll back web to revision 7: there is no such revision on record"),
            ({"to": 0}, 422, ""),
            ({"to": "1"}, 422, ""),
            ({"too": 1}, 422, ""),
        ):
            answer = await api.send("POST", "/v1/apps/web/rollback", body)
            assert (answer.status, words in answer.json["message"]) == (status, True), answer.json
        assert api.everything() == before

    run(test)


def test_a_removed_app_cannot_be_rolled_back() -> None:
    async def test(api: Api) -> None:
        await two_versions(api)
        await api.send("DELETE", "/v1/apps/web", {})
        answer = await api.send("POST", "/v1/apps/web/rollback", {"to": 1})
        assert (answer.status, answer.json["message"]) == (409, "cannot roll back web: it is being removed")

    run(test)


def test_deployments_tell_the_story_newest_first_and_in_pages() -> None:
    async def test(api: Api) -> None:
        await two_versions(api)
        await ends(api, Stage.ROLLED_BACK, "crash-looping: exited with code 3", DEGRADED)
        await api.apply(spec("v3"))
        page = (await api.get("/v1/apps/web/deployments?limit=3")).json
        told = [(row["revision"], row["version"], row["kind"], row["outcome"]) for row in page["deployments"]]
        assert told == [(3, "v3", "apply", None), (1, "v1", "auto-rollback", "succeeded"), (2, "v2", "apply", "rolled-back")]
        under_way, back, failed = page["deployments"]
        assert (under_way["phase"], under_way["finished_at"], under_way["seconds"]) == ("pending", None, None)
        assert failed["reason"] == "crash-looping: exited with code 3"
        assert [phase["phase"] for phase in failed["phases"]] == ["pending", "rolling-back", "rolled-back"]
        assert back["seconds"] >= 0
        rest = (await api.get(f"/v1/apps/web/deployments?limit=3&before={page['next']}")).json
        assert ([row["revision"] for row in rest["deployments"]], rest["next"]) == ([1], None)
        assert (await api.get("/v1/apps/nobody/deployments")).status == 404

    run(test)


def test_what_is_blocked_and_what_runs_instead_is_in_status_and_in_the_answer_to_the_same_again() -> None:
    async def test(api: Api) -> None:
        await two_versions(api)
        await ends(api, Stage.ROLLED_BACK, "exited with code 3", DEGRADED)
        status = (await api.get("/v1/status/web")).json
        assert (status["revision"], status["version"], status["running_revision"], status["running_version"]) == (2, "v2", 1, "v1")
        assert status["blocked"] == {"revision": 2, "version": "v2", "reason": "exited with code 3"}
        again = await api.apply(spec("v2"))
        assert again.json["changed"] is False
        assert again.json["message"] == (
            "unchanged: revision 2 already asks for this; revision 2 (v2) failed and is blocked: exited with code 3; "
            'to try it again, apply it with "force": true, restart the app, or apply another spec'
        )
        assert (await api.apply(spec("v2") | {"force": True})).json["revision"] == 3
        assert (await api.get("/v1/status/web")).json["blocked"] is None

    run(test)


def test_a_plan_names_every_action_in_order_and_changes_nothing() -> None:
    async def test(api: Api) -> None:
        await api.apply(spec())
        there(api)
        api.world.missing.add(("web", "v2"))  # so that it is to be fetched
        api.woken.clear()
        before, things = api.everything(), dict(api.world.things)
        answer = (await api.send("POST", "/v1/plan", spec("v2"))).json
        assert answer.pop("actions") == [
            {
                "action": "prepare",
                "instance": "web.2.0",
                "revision": 2,
                "replica": 0,
                "image": "web:v2",
                "cause": "revision 2 (v2) wants it",
            },
            {
                "action": "stop",
                "instance": "web.1.0",
                "revision": 1,
                "replica": 0,
                "signal": "SIGTERM",
                "grace_seconds": 10.0,
                "cause": "superseded by revision 2 (v2)",
            },
            {"action": "start", "instance": "web.2.0", "revision": 2, "replica": 0, "cause": "revision 2 (v2) wants it"},
            {"action": "remove", "instance": "web.1.0", "revision": 1, "replica": 0, "cause": "superseded by revision 2 (v2)"},
        ]
        assert answer == {
            "success": True,
            "message": "it would be revision 2; 4 actions would follow",
            "app": "web",
            "version": "v2",
            "revision": 2,
            "changed": True,
        }
        assert (api.everything(), api.world.things, api.woken) == (before, things, [])
        assert await api.store.newest("web") == 1

    run(test)


def test_a_plan_goes_through_all_strides_of_a_rollout() -> None:
    async def test(api: Api) -> None:
        await api.apply(spec(replicas=2))
        there(api)
        there(api, 1)
        rolled = (await api.send("POST", "/v1/plan", spec("v2", replicas=2, rollout={"strategy": "start-first"}))).json["actions"]
        assert [f"{one['action']} {one['instance']}" for one in rolled] == [
            "start web.2.0",
            "stop web.1.0",
            "start web.2.1",
            "stop web.1.1",
            "remove web.1.0",
            "remove web.1.1",
        ]

    run(test)


def test_a_plan_for_what_is_asked_for_already_is_empty_and_a_wrong_spec_is_refused() -> None:
    async def test(api: Api) -> None:
        await api.apply(spec())
        same = (await api.send("POST", "/v1/plan", spec())).json
        assert (same["changed"], same["actions"]) == (False, [])
        assert (await api.send("POST", "/v1/plan", spec(image="UPPER"))).fields == ["pkg.image"]

    run(test)


def test_a_plan_while_nobody_can_say_what_runs_is_a_503() -> None:
    async def test(api: Api) -> None:
        api.world.away.add("docker")
        answer = await api.send("POST", "/v1/plan", spec())
        assert (answer.status, "docker does not answer" in answer.json["message"]) == (503, True)

    run(test)


def test_waiting_for_a_bad_version_ends_when_the_good_one_is_back() -> None:
    async def test(api: Api) -> None:
        await api.apply(spec())
        await ends(api, Stage.SUCCEEDED)
        waiting = asyncio.create_task(api.apply(spec("v2"), "?wait=20"))
        while api.store.heads["web"].revision.revision != 2:
            await api.store.changed("web")
        await api.is_now("web", Health(0, Status.FAILED, "crash-looping"))
        assert not waiting.done()
        await ends(api, Stage.ROLLED_BACK, "crash-looping", DEGRADED)
        answer = (await waiting).json
        assert (answer["status"], answer["healthy"]["level"]) == ("degraded", 70)

    run(test)
