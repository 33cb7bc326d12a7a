"""One app's pull, stop or probe hangs for ever: every other app heals within its usual time, and new ones come up."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.engine.engine import Engine
from tests.engine.node import Node, running_node
from tests.engine.proxy import Proxy
from tests.engine.test_scenarios_docker import QUICK, container, containers
from tests.waiting import eventually

REPLICAS = 6
"""Of the app that hangs: more than the share of an app in any pool."""
USUAL_SECONDS = 4.0
FILE: dict[str, Any] = {"type": "binary", "command": ["/bin/sleep", "3600"], "rollout": {"min_healthy_seconds": 0.2}}
READY = {"interval_seconds": 0.2, "failure_threshold": 2, "timeout_seconds": 3600}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with running_node(tmp_path / "node") as started:
        yield started


@pytest.fixture
def boxes(docker_proxy: Proxy, tmp_path: Path) -> Iterator[Node]:
    with running_node(tmp_path / "node", docker_proxy.socket) as started:
        yield started


def box(engine: Engine, **more: Any) -> dict[str, Any]:
    return {"type": "docker", "image": engine.image, "command": ["/bin/sleep", "3600"], **QUICK, **more}


def heal(node: Node, app: str, kill: Callable[[], object]) -> float:
    """How many seconds after its death the app serves again."""
    before, began = node.status(app)["restarts"], time.monotonic()
    kill()
    eventually(lambda: (shown := node.status(app))["restarts"] > before and shown["healthy"]["level"] >= 80, 30)
    return time.monotonic() - began


def others_do_well(node: Node, engine: Engine | None = None) -> None:
    """Those that run heal, twice; another comes up, and goes."""
    for _ in range(2):
        assert heal(node, "file", lambda: os.kill(node.pid("file"), signal.SIGKILL)) < USUAL_SECONDS
        if engine is not None:
            assert heal(node, "box", lambda: engine.client.kill(container(engine, "box"))) < USUAL_SECONDS
    more = {"new-file": FILE} | ({"new-box": box(engine)} if engine is not None else {})
    for app, pkg in more.items():
        began = time.monotonic()
        node.apply(app, **pkg)
        node.reaches(app, "running")
        node.request("DELETE", f"/v1/apps/{app}")
        eventually(lambda app=app: node.status(app) == {}, 20)
        assert time.monotonic() - began < 2 * USUAL_SECONDS


@pytest.mark.docker
def test_scenario_15_a_pull_that_hangs_for_ever_leaves_every_other_app_to_heal_as_ever(
    boxes: Node, docker_proxy: Proxy, clean_engine: Engine
) -> None:
    boxes.apply("file", **FILE)
    boxes.apply("box", **box(clean_engine))
    rule = docker_proxy.hang("POST .*/images/create")
    for number in range(REPLICAS):  # each an image of its own: one pull serves all replicas of an app
        boxes.apply(f"stuck-{number}", **box(clean_engine, image=f"127.0.0.1:1/stuck-{number}:1", replicas=2))
    boxes.reaches("file", "running")
    boxes.reaches("box", "running")
    eventually(lambda: docker_proxy.count("POST .*/images/create") >= 1)
    others_do_well(boxes, clean_engine)
    shown = [boxes.status(f"stuck-{number}")["healthy"] for number in range(REPLICAS)]
    assert shown == [{"level": 10, "msg": f"fetching 127.0.0.1:1/stuck-{number}:1"} for number in range(REPLICAS)]
    docker_proxy.release(rule)


@pytest.mark.docker
def test_scenario_15_a_container_whose_stop_hangs_for_ever_leaves_every_other_app_to_heal_as_ever(
    boxes: Node, docker_proxy: Proxy, clean_engine: Engine
) -> None:
    boxes.apply("file", **FILE)
    boxes.apply("box", **box(clean_engine))
    boxes.apply("stuck", **box(clean_engine, replicas=REPLICAS))
    for app in ("file", "box", "stuck"):
        boxes.reaches(app, "running")
    rules = [docker_proxy.hang(f"POST .*/containers/{one['Id']}/") for one in containers(clean_engine, "stuck")]
    boxes.request("DELETE", "/v1/apps/stuck")
    eventually(lambda: docker_proxy.count("POST .*/containers/.*/kill") >= 1)
    others_do_well(boxes, clean_engine)
    assert boxes.status("stuck")["status"] == "removing"
    assert len(containers(clean_engine, "stuck")) == REPLICAS
    for rule in rules:
        docker_proxy.release(rule)
    eventually(lambda: boxes.status("stuck") == {}, 60)


@pytest.mark.docker
def test_scenario_15_a_command_probe_that_hangs_for_ever_leaves_every_other_app_to_heal_as_ever(
    boxes: Node, docker_proxy: Proxy, clean_engine: Engine
) -> None:
    probed = {"health": {"readiness": {"exec": {"command": ["/bin/true"]}, **READY, "timeout_seconds": 5}}}
    boxes.apply("file", **FILE)
    boxes.apply("box", **box(clean_engine, **probed))
    boxes.reaches("file", "running")
    boxes.reaches("box", "running")
    hanging = {"readiness": {"exec": {"command": ["/bin/sleep", "3600"]}, **READY}}
    boxes.apply("stuck", **box(clean_engine, replicas=REPLICAS, health=hanging))
    eventually(lambda: len([one for one in containers(clean_engine, "stuck") if one["State"] == "running"]) == REPLICAS, 30)
    eventually(lambda: "waiting for its readiness probe" in boxes.status("stuck")["healthy"]["msg"])
    others_do_well(boxes, clean_engine)
    assert boxes.status("stuck")["healthy"]["level"] == 25


def test_scenario_15_a_process_that_does_not_stop_for_ever_leaves_every_other_app_to_heal_as_ever(node: Node, tmp_path: Path) -> None:
    node.apply("file", **FILE)
    line = f"trap 'touch {tmp_path}/told' TERM; while :; do sleep 0.05; done"
    stubborn = FILE | {"command": ["/bin/sh", "-c", line], "replicas": REPLICAS, "stop": {"grace_seconds": 3600}}
    node.apply("stuck", **stubborn)
    node.reaches("file", "running")
    node.reaches("stuck", "running")
    node.request("DELETE", "/v1/apps/stuck")
    eventually((tmp_path / "told").exists)
    others_do_well(node)
    assert node.status("stuck")["status"] == "removing"
    for replica in range(REPLICAS):
        os.kill(node.pid("stuck", replica), signal.SIGKILL)
    eventually(lambda: node.status("stuck") == {}, 20)


@pytest.mark.parametrize("check", ["http", "exec"])
def test_scenario_15_a_probe_of_a_process_that_hangs_for_ever_leaves_every_other_app_to_heal_as_ever(node: Node, check: str) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        asked = (
            {"http": {"port": silent.getsockname()[1], "path": "/"}} if check == "http" else {"exec": {"command": ["/bin/sleep", "3600"]}}
        )
        fine = {"exec": {"command": [sys.executable, "-S", "-c", ""]}}
        node.apply("file", **FILE | {"health": {"readiness": {**fine, **READY, "timeout_seconds": 5}}})
        node.reaches("file", "running")
        node.apply("stuck", **FILE | {"replicas": REPLICAS, "health": {"readiness": {**asked, **READY}}})
        eventually(lambda: "waiting for its readiness probe" in node.status("stuck")["healthy"]["msg"])
        others_do_well(node)
        assert node.status("stuck")["healthy"]["level"] == 25
