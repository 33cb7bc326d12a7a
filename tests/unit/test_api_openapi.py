"""The OpenAPI document: valid, complete, and true."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import web
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from boreas_agent.api.openapi import OPERATIONS, document
from boreas_agent.spec import BinaryPkg, DockerPkg, ScriptPkg
from tests.unit.api_harness import RUNNING, SEED, Api, pkg, run, seed


def validator(name: str) -> Draft202012Validator:
    """Of one schema of the document."""
    whole = document()
    return Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": whole["components"]})


def test_it_is_openapi_3_1_and_is_served() -> None:
    async def test(api: Api) -> None:
        answer = await api.get("/openapi.json")
        assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
        assert answer.json["openapi"].startswith("3.1.")
        OpenAPIV31SpecValidator(answer.json).validate()

    run(test)


def test_every_route_is_in_it_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    added: set[tuple[str, str]] = set()
    add_route = web.UrlDispatcher.add_route

    def noted(self: web.UrlDispatcher, method: str, path: str, *rest: Any, **more: Any) -> web.AbstractRoute:
        added.add((method, path))
        return add_route(self, method, path, *rest, **more)

    monkeypatch.setattr(web.UrlDispatcher, "add_route", noted)

    async def test(_: Api) -> None:
        assert {route for route in added if route[0] != "HEAD"} == set(OPERATIONS)

    run(test)


def test_packages_have_the_fields_that_are_accepted() -> None:
    schemas = document()["components"]["schemas"]
    for model in (DockerPkg, BinaryPkg, ScriptPkg):
        fields = schemas[model.__name__]["properties"]
        assert set(fields) == set(model.model_fields)
    assert set(schemas["Port"]["required"]) == {"host_port", "container_port"}


@pytest.mark.parametrize(
    ("body", "fits"),
    [
        (SEED, True),
        ({"app": "a", "version": "v", "package": {"type": "script", "script": "exit 0"}, "force": True}, True),
        (pkg(replicas=1001), False),
        (pkg(colour="red"), False),
        (seed(app="a/b"), False),
        (seed(package=SEED["pkg"]), False),
        (seed(colour="red"), False),
        ({"app": "a", "version": "v"}, False),
    ],
)
def test_it_accepts_and_refuses_what_the_agent_does(body: dict[str, Any], fits: bool) -> None:
    async def test(api: Api) -> None:
        assert ((await api.apply(body)).status == 200) == fits
        assert validator("Submission").is_valid(body) == fits

    run(test)


@pytest.mark.parametrize("policy", ["resources", "restart", "log", "health", "rollout", "stop", "hooks"])
def test_it_says_what_holds_where_a_policy_is_not_given(policy: str) -> None:
    for model in (DockerPkg, BinaryPkg, ScriptPkg):
        said = document()["components"]["schemas"][model.__name__]["properties"][policy]["default"]
        assert said == getattr(model(**_LEAST[model]), policy).model_dump(mode="json")


_LEAST: dict[type, dict[str, Any]] = {
    DockerPkg: {"type": "docker", "image": "nginx"},
    BinaryPkg: {"type": "binary", "command": ("/bin/true",)},
    ScriptPkg: {"type": "script", "command": ("true",)},
}


def test_answers_are_as_it_says() -> None:
    asked: set[tuple[str, str]] = set()

    async def test(api: Api) -> None:
        async def ask(method: str, path: str, body: Any = None, app: str = "my-app", query: str = "") -> None:
            asked.add((method, path))
            answer = await api.send(method, path.replace("{app}", app) + query, body)
            assert answer.status == 200, answer.text
            name = OPERATIONS[method, path].answer
            if "/" not in name:
                validator(name).validate(answer.json)

        await ask("POST", "/v1/apply", SEED)
        await api.is_now("my-app", RUNNING)
        await ask("POST", "/v1/apply", SEED, query="?wait=1")
        await ask("POST", "/v1/plan", seed(version="v2"))
        await ask("POST", "/v1/apps/{app}/restart")
        await ask("POST", "/v1/apps/{app}/rollback", {"to": 1})
        await ask("POST", "/v1/apps/{app}/hold", {"reason": "why", "seconds": 60})
        await ask("POST", "/v1/drain", {"reason": "why"})
        for method, path in OPERATIONS:
            if method == "GET":
                await ask(method, path)
        await ask("POST", "/v1/undrain")
        await ask("POST", "/v1/apps/{app}/release")
        await ask("DELETE", "/v1/apps/{app}")
        assert asked == set(OPERATIONS)
        for answer in (await api.get("/v1/status/nope"), await api.apply({}), await api.get("/nope")):
            validator("Problem").validate(answer.json)

    run(test)
