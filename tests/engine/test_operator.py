"""Operator-PM: the agent registers with the platform's controller, and is deployed to as the controller does it."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.engine.controller import Controller, controlling
from tests.engine.engine import SERVE, Engine
from tests.engine.node import Node, alive
from tests.waiting import eventually

ENVIRONMENT = {"name": "production-pm", "type": "physical", "config": {"agent_id": "pm-node-1"}}
QUICK = {"rollout": {"min_healthy_seconds": 0.2}}


@pytest.fixture
def controller() -> Iterator[Controller]:
    with controlling() as started:
        started.environment(ENVIRONMENT)
        yield started


@contextmanager
def node_of(url: str, tmp_path: Path, docker_socket: str | None = None, **operator: Any) -> Iterator[Node]:
    """An agent that registers every second at ``url``; not started yet."""
    file = tmp_path / "agent.yaml"
    file.write_text(json.dumps({"agent": {"id": "pm-node-1", "operator": {"url": url, "interval": 1, **operator}}}))
    node = Node(tmp_path / "node", docker_socket)
    node.arguments = ("--config", str(file))
    try:
        yield node
    finally:
        node.clean_up()


def binary(**more: Any) -> dict[str, Any]:
    """A pkg with every list that the controller knows of."""
    lists: dict[str, Any] = {"args": [], "environment": {}, "volumes": [], "ports": []}
    return {"type": "binary", "command": ["/bin/sleep", "3600"], **lists, **QUICK, **more}


def operator(node: Node) -> dict[str, Any]:
    """What status says about the registration; an empty one where nobody answers."""
    status, answer = node.get("/v1/status")
    return dict(answer["operator"]) if status == 200 else {}


def said(node: Node) -> list[str]:
    """The kinds of the recorded events about the registration, oldest first."""
    return [kind for (kind,) in node.sql("SELECT kind FROM v_events WHERE kind LIKE 'Operator%' AND app IS NULL ORDER BY id")]


def test_a_node_registers_itself_and_is_deployed_to_with_exactly_the_documented_calls(controller: Controller, tmp_path: Path) -> None:
    with node_of(controller.url, tmp_path) as node:
        node.start()
        eventually(lambda: "pm-node-1" in controller.agents)
        path, headers, told = controller.calls[0]
        assert (path, headers["Content-Type"]) == ("/api/v1/agents", "application/json")
        assert told == {"agent_id": "pm-node-1", "agent_url": f"http://127.0.0.1:{node.port}"}
        assert not controller.succeeded("production-pm", "my-app", "v1.0.0"), "an empty list is no success"
        controller.deploy("production-pm", {"app": "my-app", "version": "v1.0.0", "pkg": binary()})
        eventually(lambda: controller.succeeded("production-pm", "my-app", "v1.0.0"), 30)
        controller.deploy("production-pm", {"app": "my-app", "version": "v2.0.0", "package": binary()})
        eventually(lambda: controller.succeeded("production-pm", "my-app", "v2.0.0"), 30)
        assert controller.level("production-pm") >= 80
        eventually(lambda: operator(node)["registered"])
        assert operator(node)["last_error"] is None
        eventually(lambda: said(node) == ["OperatorRegistered"])


def test_a_controller_that_was_away_and_one_that_has_forgotten_are_told_again(controller: Controller, tmp_path: Path) -> None:
    controller.stop()
    with node_of(controller.url, tmp_path) as node:
        node.start()
        eventually(lambda: operator(node)["last_error"] == "connection refused")
        assert node.apply("web", **binary())["changed"]
        node.reaches("web", "running")
        controller.start()
        eventually(lambda: "pm-node-1" in controller.agents, 30)
        eventually(lambda: operator(node)["registered"])
        controller.agents.clear()
        eventually(lambda: "pm-node-1" in controller.agents, 30)
        controller.stop()
        eventually(lambda: not operator(node)["registered"], 30)
        assert operator(node)["last_error"] == "connection refused"
        controller.start()
        eventually(lambda: operator(node)["registered"], 30)
        eventually(lambda: said(node) == ["OperatorUnreachable", "OperatorRegistered", "OperatorLost", "OperatorRegistered"])
        (unreachable,) = node.sql("SELECT message FROM v_events WHERE kind = 'OperatorUnreachable'")
        assert unreachable == (f"cannot register with {controller.url}: connection refused; trying again",)


def test_a_deployment_survives_that_agent_and_controller_are_killed_in_its_middle(controller: Controller, tmp_path: Path) -> None:
    with node_of(controller.url, tmp_path) as node:
        node.start()
        eventually(lambda: "pm-node-1" in controller.agents)
        controller.deploy("production-pm", {"app": "my-app", "version": "v1", "pkg": binary()})
        node.kill()
        controller.restart()
        assert not controller.succeeded("production-pm", "my-app", "v1")
        node.start(wait=False)
        eventually(lambda: controller.succeeded("production-pm", "my-app", "v1"), 30)
        pid = node.pid("my-app")
        for version in ("v2", "v3"):
            controller.deploy("production-pm", {"app": "my-app", "version": version, "package": binary()})
            node.kill()
            node.start(wait=False)
            controller.restart()
            eventually(lambda version=version: controller.succeeded("production-pm", "my-app", version), 30)
        assert not alive(pid)
        assert alive(node.pid("my-app"))
        assert [one["version"] for one in node.get("/v1/status")[1]["apps"]] == ["v3"]


def test_a_controller_that_takes_the_call_and_never_answers_is_in_nobodys_way(tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with node_of(url, tmp_path) as node:
            node.start()
            held, _ = silent.accept()
            with held:
                node.apply("web", **binary())
                node.reaches("web", "running")
                assert operator(node)["registered"] is False
                begun = time.monotonic()
                assert node.stop() == 0
                assert time.monotonic() - begun < 5, "the end waited for the controller"
                assert b"POST /api/v1/agents" in held.recv(4096)


def test_credentials_in_the_controllers_address_are_sent_and_never_shown(tmp_path: Path) -> None:
    taken: list[bytes] = []
    with closing(socket.create_server(("127.0.0.1", 0))) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                request = b""
                while b"}" not in request:
                    request += connection.recv(4096)
                taken.append(request)
                connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

        threading.Thread(target=serve, daemon=True).start()
        port = server.getsockname()[1]
        with node_of(f"http://boreas:s3cr3t-s3cr3t@127.0.0.1:{port}/", tmp_path, advertise_url="http://node:p4ssw0rd@pm-node-1") as node:
            node.start()
            eventually(lambda: operator(node)["last_error"] == "it answered 403")
            assert b"Authorization: Basic " in taken[0]
            assert b'"agent_url": "http://node:p4ssw0rd@pm-node-1"' in taken[0]
            assert operator(node)["url"] == f"http://***@127.0.0.1:{port}"
            shown = json.dumps([node.get("/v1/status"), node.sql("SELECT * FROM v_events")]) + (tmp_path / "node.log").read_text()
            assert "s3cr3t" not in shown
            assert "p4ssw0rd" not in shown


@pytest.mark.docker
def test_a_container_is_deployed_with_empty_lists_by_the_images_own_command(
    clean_engine: Engine, controller: Controller, tmp_path: Path
) -> None:
    clean_engine.make_image("boreas-test/serves:1", f"CMD {json.dumps(SERVE)}")
    pkg = {"type": "docker", "image": "boreas-test/serves:1", "command": [], "args": [], "environment": {}, "volumes": [], "ports": []}
    with node_of(controller.url, tmp_path, clean_engine.socket) as node:
        node.start()
        eventually(lambda: "pm-node-1" in controller.agents)
        controller.deploy("production-pm", {"app": "my-app", "version": "v1.0.0", "package": pkg})
        node.restart()
        controller.restart()
        eventually(lambda: controller.succeeded("production-pm", "my-app", "v1.0.0"), 60)
