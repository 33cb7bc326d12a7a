"""``depends_on`` over HTTP: what is accepted, what is refused and in which words, and what a plan says of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from boreas_agent.spec import instance_hash, parse_pkg, spec_hash
from tests.unit.api_harness import Api, run

BINARY: dict[str, Any] = {"type": "binary", "command": ["/bin/app"]}
SCRIPT: dict[str, Any] = {"type": "script", "command": ["true"]}
DOCKER: dict[str, Any] = {"type": "docker", "image": "x:1"}


def spec(app: str, *needs: Any, version: str = "v1", **pkg: Any) -> dict[str, Any]:
    return {"app": app, "version": version, "pkg": BINARY | {"depends_on": list(needs)} | pkg}


@pytest.mark.parametrize("pkg", [BINARY, SCRIPT, DOCKER], ids=["binary", "script", "docker"])
def test_names_of_apps_that_do_not_exist_yet_are_fine_in_either_form(pkg: dict[str, Any]) -> None:
    async def test(api: Api) -> None:
        answer = await api.apply(
            spec("web", "db", {"app": "cache", "condition": "healthy"}, {"app": "job", "condition": "completed"}, **pkg)
        )
        assert (answer.status, answer.json["revision"]) == (200, 1)
        (row,) = await api.store.revisions("web")
        assert row["spec"]["depends_on"] == [
            {"app": "db"},
            {"app": "cache", "condition": "healthy"},
            {"app": "job", "condition": "completed"},
        ]
        same = await api.apply(
            spec(
                "web",
                {"app": "db", "condition": "running"},
                {"app": "cache", "condition": "healthy"},
                {"app": "job", "condition": "completed"},
                **pkg,
            )
        )
        assert same.json["changed"] is False

    run(test)


@pytest.mark.parametrize(
    ("needs", "field", "message"),
    [
        ("db", "pkg.depends_on", "must be a list"),
        ({"db": {"condition": "healthy"}}, "pkg.depends_on", "must be a list"),
        ([7], "pkg.depends_on[0]", "must be the name of an app, or an object with app and condition"),
        ([["db"]], "pkg.depends_on[0]", "must be the name of an app, or an object with app and condition"),
        (["db", None], "pkg.depends_on[1]", "must be the name of an app, or an object with app and condition"),
        (
            ["../db"],
            "pkg.depends_on[0].app",
            "must be 1 to 63 of the characters A-Z a-z 0-9 _ . - of which the first is a letter or a digit",
        ),
        ([""], "pkg.depends_on[0].app", "must be 1 to 63 of the characters A-Z a-z 0-9 _ . - of which the first is a letter or a digit"),
        ([{"app": 7}], "pkg.depends_on[0].app", "must be a string"),
        ([{"condition": "healthy"}], "pkg.depends_on[0].app", "is required"),
        ([{"app": "db", "condition": "started"}], "pkg.depends_on[0].condition", "must be 'running', 'healthy' or 'completed'"),
        ([{"app": "db", "restart": True}], "pkg.depends_on[0].restart", "unknown field"),
        (["db", {"app": "db", "condition": "healthy"}], "pkg.depends_on", "db is given twice; one condition an app"),
        ([f"app-{number}" for number in range(65)], "pkg.depends_on", "must not have more than 64 entries"),
    ],
)
def test_a_wrong_dependency_is_refused_by_its_name(needs: Any, field: str, message: str) -> None:
    async def test(api: Api) -> None:
        for path in ("/v1/apply", "/v1/plan"):
            answer = await api.send("POST", path, {"app": "web", "version": "v1", "pkg": BINARY | {"depends_on": needs}})
            assert (answer.status, answer.json["errors"]) == (422, [{"field": field, "message": message}])
        assert api.everything() == {}

    run(test)


def test_sixty_four_are_not_too_many() -> None:
    async def test(api: Api) -> None:
        assert (await api.apply(spec("web", *(f"app-{number}" for number in range(64))))).status == 200

    run(test)


def test_an_app_that_would_wait_for_itself_is_refused_with_the_way_round() -> None:
    async def test(api: Api) -> None:
        await api.apply(spec("web", "api"))
        await api.apply(spec("api", "db"))
        before = api.everything()
        for path in ("/v1/apply", "/v1/plan"):
            answer = await api.send("POST", path, spec("db", {"app": "web", "condition": "healthy"}))
            assert answer.status == 422
            assert answer.json["errors"] == [
                {"field": "pkg.depends_on", "message": "db would wait for itself: db -> web -> api -> db"},
            ]
            itself = await api.send("POST", path, spec("solo", "solo"))
            assert (itself.status, itself.json["errors"][0]["message"]) == (422, "solo would wait for itself: solo -> solo")
        assert api.everything() == before

    run(test)


def test_only_what_is_desired_now_counts_for_a_cycle() -> None:
    async def test(api: Api) -> None:
        await api.apply(spec("web", "db"))
        await api.apply(spec("web", version="v2"))
        assert (await api.apply(spec("db", "web"))).status == 200
        assert (await api.apply(spec("web", "db", version="v3"))).status == 422
        await api.send("DELETE", "/v1/apps/db", {})
        assert (await api.apply(spec("web", "db", version="v3"))).status == 200

    run(test)


def test_of_two_that_come_together_and_wait_for_each_other_one_is_refused() -> None:
    async def test(api: Api) -> None:
        answers = await asyncio.gather(api.apply(spec("a", "b")), api.apply(spec("b", "a")))
        assert sorted(answer.status for answer in answers) == [200, 422]

    run(test)


def test_a_rollback_to_what_would_wait_for_itself_is_refused() -> None:
    async def test(api: Api) -> None:
        await api.apply(spec("web", "db"))
        await api.apply(spec("web", version="v2"))
        await api.apply(spec("db", "web"))
        answer = await api.send("POST", "/v1/apps/web/rollback", {"to": 1})
        assert (answer.status, "it would wait for itself: web -> db -> web" in answer.json["message"]) == (409, True)
        assert api.store.heads["web"].revision.revision == 2

    run(test)


def test_what_others_depend_on_can_be_removed_and_the_index_follows() -> None:
    async def test(api: Api) -> None:
        await api.apply(spec("web", "db"))
        await api.apply(spec("api", "db"))
        await api.apply(spec("db"))
        assert api.store.dependents("db") == {"web", "api"}
        assert (await api.send("DELETE", "/v1/apps/db", {})).status == 200
        await api.apply(spec("web", version="v2"))
        assert api.store.dependents("db") == {"api"}
        await api.send("DELETE", "/v1/apps/api", {})
        await api.is_gone("api")
        assert api.store.dependents("db") == frozenset()

    run(test)


def test_a_plan_says_what_would_be_waited_for() -> None:
    async def test(api: Api) -> None:
        planned = (await api.send("POST", "/v1/plan", spec("web", "db"))).json
        assert planned["message"] == (
            "it would be revision 1; 1 action would follow; it would be waiting for db: there is no such app on this node"
        )
        await api.apply(spec("db"))
        planned = (await api.send("POST", "/v1/plan", spec("web", {"app": "db", "condition": "healthy"}))).json
        assert planned["message"].endswith("; it would be waiting for db to be healthy: db is deploying (10)")
        assert [one["action"] for one in planned["actions"]] == ["start"]
        assert (await api.send("POST", "/v1/plan", spec("solo"))).json["message"] == "it would be revision 1; 1 action would follow"

    run(test)


@pytest.mark.parametrize("pkg", [BINARY, DOCKER])
def test_what_an_app_depends_on_is_another_request_and_the_same_instance(pkg: dict[str, Any]) -> None:
    alone, waits = parse_pkg(pkg), parse_pkg(pkg | {"depends_on": ["db"]})
    assert instance_hash("v1", alone, 0, 1) == instance_hash("v1", waits, 0, 1)
    assert spec_hash("v1", alone) != spec_hash("v1", waits)
    assert parse_pkg(pkg | {"depends_on": []}).canonical_text == alone.canonical_text
