"""The scenarios that must hold, on a real agent with a real Docker Engine."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engine.engine import Engine
from tests.engine.node import Node, running_node
from tests.engine.proxy import Proxy
from tests.ports import free_port
from tests.waiting import eventually

pytestmark = pytest.mark.docker
QUICK = {"rollout": {"min_healthy_seconds": 0.2}, "stop": {"grace_seconds": 0.5}}


@pytest.fixture
def node(clean_engine: Engine, tmp_path: Path) -> Iterator[Node]:
    with running_node(tmp_path / "node", clean_engine.socket) as started:
        yield started


@pytest.fixture
def proxied(docker_proxy: Proxy, tmp_path: Path) -> Iterator[Node]:
    with running_node(tmp_path / "node", docker_proxy.socket) as started:
        yield started


def box(engine: Engine, **more: Any) -> dict[str, Any]:
    return {"type": "docker", "image": engine.image, "command": ["/bin/sleep", "3600"], **QUICK, **more}


def containers(engine: Engine, app: str) -> list[dict[str, Any]]:
    """The app's containers as the engine lists them, running or not."""
    return list(engine.client.containers(all=True, filters={"label": f"boreas.app={app}"}))


def container(engine: Engine, app: str) -> str:
    """The id of the app's only container."""
    (only,) = containers(engine, app)
    return str(only["Id"])


def running(engine: Engine, app: str) -> list[str]:
    """Ids of the app's running containers."""
    return [one["Id"] for one in containers(engine, app) if one["State"] == "running"]


def test_the_example_of_the_original_document_converges(node: Node, clean_engine: Engine, tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "config.yaml").write_text("hello")
    body = {
        "app": "my-app",
        "version": "v1.0.0",
        "pkg": {
            "type": "docker",
            "image": clean_engine.image,
            "command": ["/bin/busybox", "httpd", "-f"],
            "args": ["-p", "8080", "-h", "/app/data"],
            "environment": {"ENV": "production"},
            "volumes": [{"host_path": str(tmp_path / "data"), "container_path": "/app/data", "read_only": False}],
            "ports": [{"host_port": port, "container_port": 8080, "protocol": "tcp"}],
            "stop": {"grace_seconds": 0.5},
        },
    }
    assert node.request("POST", "/v1/apply", body)[0] == 200
    shown = node.reaches("my-app", "running")
    assert (shown["app"], shown["version"], shown["healthy"]) == ("my-app", "v1.0.0", {"level": 100, "msg": "Running"})
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/config.yaml", timeout=10) as answer:
        assert answer.read() == b"hello"
    labels = containers(clean_engine, "my-app")[0]["Labels"]
    assert {key: labels[f"boreas.{key}"] for key in ("app", "version", "revision", "replica")} == {
        "app": "my-app",
        "version": "v1.0.0",
        "revision": "1",
        "replica": "0",
    }


def test_scenario_1_killing_the_agent_ten_times_touches_no_container(node: Node, clean_engine: Engine) -> None:
    node.apply("web", **box(clean_engine, replicas=2))
    node.reaches("web", "running")
    before = sorted((one["Id"], one["Created"]) for one in containers(clean_engine, "web"))
    started = [clean_engine.client.inspect_container(ident)["State"]["StartedAt"] for ident, _ in before]
    for round_ in range(10):
        node.kill()
        node.start(wait=False)
        if round_ % 2:
            eventually(lambda: node.get("/v1/health")[0] == 200)
            node.apply("noise", f"v{round_}", **box(clean_engine))
    eventually(lambda: node.get("/v1/ready")[0] == 200)
    assert sorted((one["Id"], one["Created"]) for one in containers(clean_engine, "web")) == before
    assert [clean_engine.client.inspect_container(ident)["State"]["StartedAt"] for ident, _ in before] == started
    assert node.reaches("web", "running")["restarts"] == 0
    node.reaches("noise", "running")
    assert len(containers(clean_engine, "noise")) == 1


def test_scenario_2_killed_between_create_and_start_the_container_is_started_once(
    proxied: Node, docker_proxy: Proxy, clean_engine: Engine
) -> None:
    rule = docker_proxy.hang("POST .*/start")
    proxied.apply("web", **box(clean_engine))
    eventually(lambda: [one["State"] for one in containers(clean_engine, "web")] == ["created"])
    created = container(clean_engine, "web")
    proxied.kill()
    docker_proxy.release(rule)
    proxied.start()
    assert proxied.reaches("web", "running")["restarts"] == 0
    assert container(clean_engine, "web") == created
    assert proxied.exits("web") == []


def test_scenario_3_a_create_whose_reply_was_lost_is_adopted_and_foreign_containers_are_untouched(
    proxied: Node, docker_proxy: Proxy, clean_engine: Engine
) -> None:
    foreign = clean_engine.run("postgres")
    docker_proxy.lose_reply("POST .*/containers/create")
    proxied.apply("web", **box(clean_engine))
    proxied.reaches("web", "running")
    assert len(containers(clean_engine, "web")) == 1
    state = clean_engine.client.inspect_container(foreign)
    assert (state["State"]["Status"], state["RestartCount"]) == ("running", 0)


@pytest.mark.parametrize("live_restore", [True, False])
def test_scenario_5_an_engine_restart_brings_every_app_back_exactly_once(node: Node, clean_engine: Engine, live_restore: bool) -> None:
    clean_engine.set_live_restore(live_restore)
    node.apply("web", **box(clean_engine, replicas=2))
    node.apply("file", type="binary", command=["/bin/sleep", "3600"], **QUICK)
    node.reaches("web", "running")
    node.reaches("file", "running")
    before = {one["Id"]: clean_engine.client.inspect_container(one["Id"])["State"]["StartedAt"] for one in containers(clean_engine, "web")}
    clean_engine.restart(live_restore=live_restore)
    eventually(lambda: len(running(clean_engine, "web")) == 2, 60)
    eventually(lambda: node.status("web")["healthy"]["level"] >= 80, 60)
    after = {one["Id"]: clean_engine.client.inspect_container(one["Id"])["State"]["StartedAt"] for one in containers(clean_engine, "web")}
    assert set(after) == set(before)
    assert (after == before) is live_restore
    eventually(lambda: node.status("web")["restarts"] == (0 if live_restore else 2))
    assert node.status("file")["restarts"] == 0


MEDDLING: dict[str, Callable[[Any, str], object]] = {
    "stop": lambda client, ident: client.stop(ident, timeout=0),
    "kill": lambda client, ident: client.kill(ident),
    "rm -f": lambda client, ident: client.remove_container(ident, force=True),
    "pause": lambda client, ident: client.pause(ident),
    "rename": lambda client, ident: client.rename(ident, "something-else"),
}


@pytest.mark.parametrize("what", MEDDLING)
def test_scenario_13_what_a_user_does_to_a_container_is_healed_and_told(node: Node, clean_engine: Engine, what: str) -> None:
    node.apply("web", **box(clean_engine))
    node.reaches("web", "running")
    name, known = containers(clean_engine, "web")[0]["Names"], len(node.events("web"))
    MEDDLING[what](clean_engine.client, container(clean_engine, "web"))
    eventually(lambda: len(node.events("web")) > known and len(running(clean_engine, "web")) == 1, 20)
    eventually(lambda: containers(clean_engine, "web")[0]["Names"] == name)
    eventually(lambda: node.status("web")["healthy"]["level"] >= 80)
    told = " ".join(node.events("web")[known:])
    assert {"stop": "SIGKILL", "kill": "SIGKILL", "rm -f": "started web", "pause": "paused", "rename": "renamed"}[what] in told
    assert bool(node.exits("web")) == (what in ("stop", "kill", "rm -f"))  # rm -f kills first, and may be seen doing so


def test_a_taken_host_port_is_named_and_healed_when_it_is_free_again(node: Node, clean_engine: Engine) -> None:
    port = free_port()
    with contextlib.closing(socket.socket()) as taken:
        taken.bind(("0.0.0.0", port))
        taken.listen()
        retry = {"initial_delay_seconds": 0.2, "max_delay_seconds": 0.5}
        node.apply("web", **box(clean_engine, restart=retry, ports=[{"host": port, "container": 80}]))
        failed = node.reaches("web", "failed")
        assert str(port) in failed["healthy"]["msg"]
        assert str(os.getpid()) in failed["healthy"]["msg"]
    node.reaches("web", "running")


def test_a_missing_image_leaves_the_old_version_serving_and_says_so(node: Node, clean_engine: Engine) -> None:
    node.apply("web", "v1", **box(clean_engine))
    node.reaches("web", "running")
    before = container(clean_engine, "web")
    node.apply("web", "v2", **box(clean_engine, image=f"127.0.0.1:{free_port()}/nobody/has-it:1"))
    eventually(lambda: "cannot pull" in node.status("web")["healthy"]["msg"], 30)
    shown = node.status("web")
    assert (shown["version"], shown["status"], shown["healthy"]["level"]) == ("v2", "deploying", 50)
    assert container(clean_engine, "web") == before
    assert running(clean_engine, "web") == [before]


def test_an_empty_database_adopts_running_containers(node: Node, clean_engine: Engine) -> None:
    node.apply("web", "v7", **box(clean_engine, environment={"KEY": "value"}))
    node.reaches("web", "running")
    before = container(clean_engine, "web")
    node.stop()
    for file in node.work_dir.glob("agent.db*"):
        file.unlink()
    node.start()
    assert node.reaches("web", "running")["version"] == "v7"
    assert container(clean_engine, "web") == before
    assert node.apply("web", "v7", **box(clean_engine, environment={"KEY": "value"}))["changed"] is False


def test_an_engine_that_is_away_makes_the_state_unknown_and_stops_nothing(node: Node, clean_engine: Engine) -> None:
    clean_engine.set_live_restore(True)
    node.apply("web", **box(clean_engine))
    node.reaches("web", "running")
    before = container(clean_engine, "web")
    clean_engine.stop()
    try:
        eventually(lambda: "unknown" in node.status("web")["healthy"]["msg"], 30)
        assert node.status("web")["healthy"]["level"] >= 80
        node.apply("file", type="binary", command=["/bin/sleep", "3600"], **QUICK)
        node.reaches("file", "running")
    finally:
        clean_engine.start()
    eventually(lambda: node.status("web")["healthy"] == {"level": 100, "msg": "Running"}, 60)
    assert container(clean_engine, "web") == before
    assert node.exits("web") == []


def test_a_removed_app_leaves_no_container_behind_and_may_come_back(node: Node, clean_engine: Engine) -> None:
    node.apply("web", **box(clean_engine))
    node.reaches("web", "running")
    assert node.request("DELETE", "/v1/apps/web")[0] == 200
    eventually(lambda: node.get("/v1/status/web")[0] == 404, 20)
    assert containers(clean_engine, "web") == []
    assert node.apply("web", **box(clean_engine))["revision"] == 3
    node.reaches("web", "running")


def test_an_app_that_changes_its_type_is_never_there_twice(node: Node, clean_engine: Engine) -> None:
    node.apply("web", "v1", **box(clean_engine))
    node.reaches("web", "running")
    node.apply("web", "v2", type="binary", command=["/bin/sleep", "3600"], **QUICK)
    node.reaches("web", "running", revision=2)
    assert containers(clean_engine, "web") == []
    node.apply("web", "v3", **box(clean_engine))
    node.reaches("web", "running", revision=3)
    with contextlib.suppress(ValueError):  # no claim is left: the process and its folder are gone
        os.kill(node.pid("web"), signal.SIGCONT)
        raise AssertionError("the process outlived its revision")
