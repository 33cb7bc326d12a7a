"""Removing, restarting, holding; history; health and readiness."""

from __future__ import annotations

import resource
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from boreas_agent.model import Health, Status
from tests.unit.api_harness import RUNNING, SEED, Api, pkg, run, seed


def test_removing_answers_like_apply_then_404_once_all_is_gone_while_the_history_stays() -> None:
    async def test(api: Api) -> None:
        await api.apply(SEED)
        answer = await api.send("DELETE", "/v1/apps/my-app")
        assert answer.status == 200
        assert {key: answer.json[key] for key in ("success", "app", "version", "revision", "changed")} == {
            "success": True,
            "app": "my-app",
            "version": "v1.0.0",
            "revision": 2,
            "changed": True,
        }
        status = (await api.get("/v1/status/my-app")).json
        assert (status["status"], status["healthy"]["level"], status["kind"]) == ("removing", 0, "remove")
        assert (await api.send("DELETE", "/v1/apps/my-app")).json["changed"] is False
        await api.is_gone("my-app")
        assert (await api.get("/v1/status/my-app")).status == 404
        assert (await api.get("/v1/status")).json["apps"] == []
        assert (await api.send("DELETE", "/v1/apps/my-app")).status == 404
        history = (await api.get("/v1/apps/my-app/revisions")).json["revisions"]
        assert [(row["revision"], row["kind"]) for row in history] == [(2, "remove"), (1, "apply")]
        assert (await api.apply(SEED)).json["revision"] == 3
        assert api.woken == ["my-app"] * 3

    run(test)


def test_a_restart_is_a_new_revision_of_the_same_spec() -> None:
    async def test(api: Api) -> None:
        await api.apply(SEED)
        answer = await api.send("POST", "/v1/apps/my-app/restart", {})
        assert (answer.status, answer.json["revision"], answer.json["changed"]) == (200, 2, True)
        assert (await api.apply(SEED)).json["changed"] is False
        assert api.woken == ["my-app", "my-app"]
        await api.send("DELETE", "/v1/apps/my-app")
        assert (await api.send("POST", "/v1/apps/my-app/restart")).status == 409

    run(test)


def test_status_says_by_whom_why_and_until_when_an_app_is_held() -> None:
    async def test(api: Api) -> None:
        await api.apply(SEED)
        await api.is_now("my-app", RUNNING)
        answer = await api.send("POST", "/v1/apps/my-app/hold", {"reason": "disk swap", "seconds": 600})
        assert (answer.status, answer.json["revision"], answer.json["changed"]) == (200, 1, True)
        status = (await api.get("/v1/status/my-app")).json
        assert status["held"]["by"] == "api 127.0.0.1"
        assert status["held"]["reason"] == "disk swap"
        assert status["held"]["until"].endswith("Z")
        assert status["healthy"] == {"level": 100, "msg": f"Running (held by api 127.0.0.1 until {status['held']['until']}: disk swap)"}
        released = await api.send("POST", "/v1/apps/my-app/release")
        assert (released.status, released.json["changed"]) == (200, True)
        status = (await api.get("/v1/status/my-app")).json
        assert (status["held"], status["healthy"]["msg"]) == (None, "Running")
        assert (await api.send("POST", "/v1/apps/my-app/release")).json["changed"] is False

    run(test)


def test_a_hold_without_a_body_lasts_until_it_is_released() -> None:
    async def test(api: Api) -> None:
        await api.apply(SEED)
        assert (await api.send("POST", "/v1/apps/my-app/hold")).status == 200
        status = (await api.get("/v1/status/my-app")).json
        assert status["held"] == {"by": "api 127.0.0.1", "reason": "", "until": None}
        assert status["healthy"]["msg"].endswith("(held by api 127.0.0.1 until released)")

    run(test)


BAD_HOLDS: list[tuple[Any, str]] = [
    ({"seconds": 0}, "seconds"),
    ({"seconds": -1}, "seconds"),
    ({"seconds": "60"}, "seconds"),
    ({"seconds": True}, "seconds"),
    ({"seconds": 1e300}, "seconds"),
    ({"reason": "a\nb"}, "reason"),
    ({"reason": "x" * 501}, "reason"),
    ({"why": "x"}, "why"),
    ([], ""),
    (3, ""),
]


def test_null_means_not_given_in_the_options_of_a_hold() -> None:
    async def test(api: Api) -> None:
        await api.apply(seed())
        answer = await api.send("POST", "/v1/apps/my-app/hold", {"reason": None, "seconds": None})
        assert answer.status == 200
        held = (await api.get("/v1/status/my-app")).json["held"]
        assert (held["reason"], held["until"]) == ("", None)

    run(test)


def test_a_bad_hold_is_refused_by_its_field_and_holds_nothing() -> None:
    async def test(api: Api) -> None:
        await api.apply(SEED)
        before = api.everything()
        for body, field in BAD_HOLDS:
            answer = await api.send("POST", "/v1/apps/my-app/hold", body)
            assert (answer.status, answer.fields) == (422, [field]), body
        assert api.everything() == before

    run(test)


@pytest.mark.parametrize(("method", "path"), [("POST", "restart"), ("POST", "release"), ("DELETE", "")])
def test_options_that_do_not_exist_are_refused(method: str, path: str) -> None:
    async def test(api: Api) -> None:
        await api.apply(SEED)
        before = api.everything()
        assert (await api.send(method, f"/v1/apps/my-app/{path}".rstrip("/"), {"now": True})).fields == ["now"]
        assert (await api.send(method, f"/v1/apps/my-app/{path}".rstrip("/"), b"{")).status == 400
        assert api.everything() == before

    run(test)


def test_revisions_are_paged_newest_first_with_masked_environment_values() -> None:
    async def test(api: Api) -> None:
        for n in range(1, 6):
            await api.apply(seed(version=f"v{n}"))
        page = (await api.get("/v1/apps/my-app/revisions?limit=2")).json
        assert [row["revision"] for row in page["revisions"]] == [5, 4]
        assert (page["app"], page["next"]) == ("my-app", 4)
        assert page["revisions"][0]["spec"]["environment"] == {"ENV": "***"}
        page = (await api.get(f"/v1/apps/my-app/revisions?limit=3&before={page['next']}")).json
        assert [row["revision"] for row in page["revisions"]] == [3, 2, 1]
        page = (await api.get("/v1/apps/my-app/revisions?before=1&limit=999999")).json
        assert (page["revisions"], page["next"]) == ([], None)
        assert (await api.get("/v1/apps/other/revisions")).status == 404

    run(test)


def test_a_bad_page_is_refused_by_its_field() -> None:
    async def test(api: Api) -> None:
        for query in ("limit=0", "limit=-1", "limit=abc", "limit=1.5", "limit=", "limit=%zz", "before=x", "before=" + "9" * 30):
            answer = await api.get(f"/v1/apps/my-app/revisions?{query}")
            assert (answer.status, answer.fields) == (422, [query.partition("=")[0]])

    run(test)


@contextmanager
def no_room(beyond: int) -> Iterator[None]:
    """No file of this process may grow beyond ``beyond`` bytes, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (beyond, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_on_a_full_disk_changes_are_503_and_health_is_unhealthy_until_there_is_room() -> None:
    async def test(api: Api) -> None:
        await api.apply(SEED)
        answer = await api.get("/v1/health")
        assert (answer.status, answer.json) == (200, {"status": "healthy", "service": "operator-pm-agent"})
        before = api.everything()
        with no_room(beyond=api.database.with_name("agent.db-wal").stat().st_size):
            refused = await api.apply(seed(version="v2"))
            assert (refused.status, refused.json["success"]) == (503, False)
            assert "cannot record" in refused.json["message"]
            assert refused.headers["Content-Type"] == "application/problem+json"
            answer = await api.get("/v1/health")
            assert (answer.status, answer.json["status"], answer.json["service"]) == (503, "unhealthy", "operator-pm-agent")
            assert (answer.json["success"], api.everything(), api.woken) == (False, before, ["my-app"])
            assert (await api.get("/v1/status/my-app")).json["version"] == "v1.0.0"
        assert (await api.get("/v1/health")).status == 200
        assert (await api.apply(seed(version="v2"))).json["revision"] == 2

    run(test)


def test_what_was_acknowledged_is_in_the_database_for_everybody_to_see() -> None:
    async def test(api: Api) -> None:
        await api.apply(pkg(environment={"A": "secret"}))
        with closing(sqlite3.connect(f"file:{api.database}?mode=ro", uri=True)) as database:
            assert database.execute("SELECT app, version, status FROM v_status").fetchall() == [("my-app", "v1.0.0", "pending")]

    run(test)


def test_ready_follows_the_first_pass() -> None:
    passes: list[int] = []

    async def test(api: Api) -> None:
        answer = await api.get("/v1/ready")
        assert (answer.status, answer.json["success"]) == (503, False)
        passes.append(1)
        assert (await api.get("/v1/ready")).status == 200

    run(test, ready=lambda: bool(passes))


def test_an_app_that_is_stopped_is_no_blemish() -> None:
    async def test(api: Api) -> None:
        await api.apply(pkg(replicas=0))
        await api.is_now("my-app", Health(0, Status.STOPPED, "0 replicas"))
        assert (await api.get("/v1/status")).json["healthy"]["level"] == 100

    run(test)
