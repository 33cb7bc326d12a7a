"""Rollouts on a real agent with a real Docker Engine."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engine.engine import Engine
from tests.engine.node import Node, running_node
from tests.engine.proxy import Proxy
from tests.engine.registry import Registry
from tests.engine.test_rollouts import deployments, levels
from tests.engine.test_scenarios_docker import container, containers, running
from tests.ports import free_port
from tests.waiting import eventually

pytestmark = pytest.mark.docker
QUICK: dict[str, Any] = {"rollout": {"min_healthy_seconds": 0.3}, "restart": {"initial_delay_seconds": 0.1}, "stop": {"grace_seconds": 0.5}}


@pytest.fixture
def node(clean_engine: Engine, tmp_path: Path) -> Iterator[Node]:
    with running_node(tmp_path / "node", clean_engine.socket) as started:
        yield started


def box(engine: Engine, **more: Any) -> dict[str, Any]:
    return {"type": "docker", "image": engine.image, "command": ["/bin/sleep", "3600"], **QUICK, **more}


@pytest.mark.parametrize("how", ["exits at once", "no such program", "no such image"])
def test_scenario_9_a_bad_container_is_rolled_back_and_not_tried_again(
    node: Node, clean_engine: Engine, registry: Registry, how: str
) -> None:
    port = free_port()
    serve = {"command": ["/bin/busybox", "httpd", "-f", "-p", "80", "-h", "/etc"], "ports": [{"host": port, "container": 80}]}
    change, why = {
        "exits at once": ({"command": ["/bin/sh", "-c", "exit 3"]}, "crash-looping: exited with code 3, 3 times in a row"),
        "no such program": ({"command": ["/no/such/program"]}, "/no/such/program"),
        "no such image": ({"image": f"{registry.host}/no/such:1"}, f"cannot pull {registry.host}/no/such:1"),
    }[how]
    node.apply("web", "v1", **box(clean_engine, **serve))
    node.apply("other", "v1", **box(clean_engine))
    node.reaches("web", "running")
    node.reaches("other", "running")
    before, other = container(clean_engine, "web"), container(clean_engine, "other")
    node.apply("web", "v2", **box(clean_engine, **serve | change))
    eventually(lambda: len(deployments(node)) == 3 and deployments(node)[1][3] == "rolled-back", 40)
    shown = node.reaches("web", "degraded")
    assert why in shown["healthy"]["msg"]
    assert (shown["version"], shown["running_version"]) == ("v2", "v1")
    assert deployments(node)[1:] == [(2, "v2", "apply", "rolled-back"), (1, "v1", "auto-rollback", "succeeded")]
    assert max(levels(node)) < 80
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/image", timeout=10) as answer:
        assert answer.read().decode().strip() == clean_engine.image
    if how == "no such image":
        assert container(clean_engine, "web") == before
        assert min(levels(node)) >= 50
    assert container(clean_engine, "other") == other
    eventually(lambda: len(containers(clean_engine, "web")) == 1)
    kept = container(clean_engine, "web")
    node.restart()
    assert node.apply("web", "v2", **box(clean_engine, **serve | change))["changed"] is False
    node.reaches("web", "degraded")
    assert container(clean_engine, "web") == kept


def test_scenario_9_the_very_bytes_that_ran_are_back_though_the_tag_has_moved(node: Node, clean_engine: Engine) -> None:
    clean_engine.make_image("moving:1")
    first = clean_engine.client.inspect_image("moving:1")["Id"]
    node.apply("web", "v1", **box(clean_engine, image="moving:1"))
    node.reaches("web", "running")
    node.restart()
    clean_engine.make_image("moving:1", 'ENV WHICH="second"')
    second = clean_engine.client.inspect_image("moving:1")["Id"]
    assert first != second
    node.apply("web", "v2", **box(clean_engine, image="moving:1", command=["/bin/sh", "-c", "exit 3"]))
    eventually(lambda: len(deployments(node)) == 3 and deployments(node)[1][3] == "rolled-back", 40)
    assert containers(clean_engine, "web")[0]["ImageID"] == first
    node.request("DELETE", "/v1/apps/web")
    eventually(lambda: node.status("web") == {}, 20)
    for image in (first, second):
        clean_engine.client.remove_image(image, force=True)


def test_start_first_moves_a_container_without_a_moment_with_none(node: Node, clean_engine: Engine) -> None:
    rollout = {"rollout": {"strategy": "start-first", "min_healthy_seconds": 0.5}}
    node.apply("web", "v1", **box(clean_engine, replicas=2, **rollout))
    node.reaches("web", "running")
    fewest = []
    node.apply("web", "v2", **box(clean_engine, replicas=2, **rollout))
    eventually(lambda: fewest.append(len(running(clean_engine, "web"))) or node.status("web")["healthy"]["level"] == 100, 40)
    eventually(lambda: deployments(node)[-1] == (2, "v2", "apply", "succeeded"))
    assert (min(fewest), max(fewest)) == (2, 3)
    assert {one["Labels"]["boreas.version"] for one in containers(clean_engine, "web")} == {"v2"}
    with_port = box(clean_engine, **rollout, ports=[{"host": 1, "container": 1}])
    status, answer = node.request("POST", "/v1/apply", {"app": "web", "version": "v3", "pkg": with_port})
    assert (status, answer["errors"][0]["field"]) == (422, "pkg.rollout.strategy")


def test_scenario_15_a_pull_that_hangs_is_given_up_at_the_deadline_and_holds_up_nobody(
    docker_proxy: Proxy, clean_engine: Engine, tmp_path: Path
) -> None:
    with running_node(tmp_path / "node", docker_proxy.socket) as node:
        node.apply("web", "v1", **box(clean_engine))
        node.apply("other", "v1", **box(clean_engine))
        node.reaches("web", "running")
        node.reaches("other", "running")
        before = container(clean_engine, "web")
        docker_proxy.hang("POST .*/images/create")
        rollout = {"rollout": {"min_healthy_seconds": 0.3, "progress_deadline_seconds": 3}}
        node.apply("web", "v2", **box(clean_engine, image="127.0.0.1:1/slow:1") | rollout)
        eventually(lambda: "fetching" in node.status("web")["healthy"]["msg"])
        clean_engine.client.kill(container(clean_engine, "other"))
        eventually(lambda: node.status("other")["restarts"] == 1, 5)
        eventually(lambda: len(deployments(node)) == 3 and deployments(node)[1][3] == "rolled-back", 20)
        assert "not here by the deadline" in node.status("web")["healthy"]["msg"]
        assert container(clean_engine, "web") == before
