"""Apps that depend on others, on a real agent with real processes and a real Docker Engine."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.engine.engine import SERVE, Engine
from tests.engine.node import Node, alive, running_node
from tests.engine.test_scenarios_docker import running
from tests.waiting import eventually

QUICK: dict[str, Any] = {"rollout": {"min_healthy_seconds": 0.2}, "stop": {"grace_seconds": 2}}
FOREVER: dict[str, Any] = {"type": "binary", "command": ["/bin/sleep", "3600"], **QUICK}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with running_node(tmp_path / "node") as started:
        yield started


@pytest.fixture
def docker_node(clean_engine: Engine, tmp_path: Path) -> Iterator[Node]:
    with running_node(tmp_path / "node", clean_engine.socket) as started:
        yield started


def box(engine: Engine, **more: Any) -> dict[str, Any]:
    return {"type": "docker", "image": engine.image, "command": list(SERVE), **QUICK, **more}


def needs(app: str, condition: str = "running") -> dict[str, Any]:
    return {"depends_on": [{"app": app, "condition": condition}]}


def told(node: Node, kind: str) -> list[str]:
    """The apps of which something was told, in order."""
    return [app for (app,) in node.sql("SELECT app FROM v_events WHERE kind = ? AND app IS NOT NULL ORDER BY id", kind)]


def waits(node: Node, app: str, why: str) -> dict[str, Any]:
    """It waits visibly, and on its way."""

    def seen() -> dict[str, Any] | None:
        shown = node.status(app)
        return shown if why in shown.get("healthy", {}).get("msg", "") else None

    shown = eventually(seen)
    assert shown is not None
    assert (shown["status"], 1 <= shown["healthy"]["level"] < 50) == ("deploying", True), shown
    return shown


def at(node: Node, query: str) -> datetime:
    ((when,),) = node.sql(query)
    return datetime.fromisoformat(when)


@pytest.mark.docker
def test_apps_of_all_kinds_start_in_order_though_they_were_applied_backwards(docker_node: Node, clean_engine: Engine) -> None:
    node = docker_node
    node.apply("web", **FOREVER, depends_on=["cache", {"app": "migrate", "condition": "completed"}])
    node.apply("cache", **box(clean_engine, **needs("db", "healthy")))
    node.apply("migrate", type="script", command=["echo migrated"], **needs("db", "healthy"))
    waits(node, "web", "waiting for cache to be running: cache is deploying (10), and for migrate to complete")
    waits(node, "migrate", "waiting for db: there is no such app on this node")
    assert running(clean_engine, "cache") == []
    node.apply("db", **box(clean_engine))
    node.reaches("web", "running")
    order = told(node, "Started")
    assert (order[0], sorted(order)) == ("db", ["cache", "db", "migrate", "web"])
    begins = datetime.fromtimestamp(node.claim("web")["wall"], UTC)
    (cache,) = running(clean_engine, "cache")
    assert begins > datetime.fromisoformat(clean_engine.client.inspect_container(cache)["State"]["StartedAt"])
    assert begins > datetime.fromtimestamp(node.claim("migrate")["wall"], UTC)
    assert sorted(told(node, "Waiting")) == ["cache", "migrate", "web"], "once each"
    healthy = at(node, "SELECT min(at) FROM v_health WHERE app = 'db' AND level >= 80")
    begun = at(node, "SELECT at FROM v_events WHERE app = 'migrate' AND kind = 'Started'")
    assert (begun - healthy).total_seconds() < 2, "woken, not polled"
    assert {row["outcome"] for row in node.get("/v1/apps/web/deployments")[1]["deployments"]} == {"succeeded"}


def test_a_wait_ends_with_the_app_it_is_for_and_the_old_version_serves_meanwhile(node: Node) -> None:
    node.apply("web", **FOREVER)
    node.reaches("web", "running")
    pid = node.pid("web")
    node.apply("web", "v2", **FOREVER, **needs("db"))
    eventually(lambda: "waiting for db: there is no such app" in node.status("web")["healthy"]["msg"])
    shown = node.status("web")
    assert (shown["status"], shown["healthy"]["level"], alive(pid)) == ("deploying", 50, True)
    node.apply("db", **FOREVER)
    node.reaches("web", "running", revision=2)
    assert not alive(pid)
    node.request("DELETE", "/v1/apps/db")
    eventually(lambda: node.status("db") == {})
    assert alive(node.pid("web")), "what runs goes on"
    os.kill(before := node.pid("web"), signal.SIGKILL)
    eventually(lambda: node.pid("web") != before and alive(node.pid("web")))
    node.request("POST", "/v1/apps/web/restart")
    eventually(lambda: "waiting for db: there is no such app" in node.status("web")["healthy"]["msg"])
    assert node.status("web")["running_revision"] == 3


def test_a_plan_names_what_would_be_waited_for_and_a_cycle_is_refused(node: Node, tmp_path: Path) -> None:
    file = tmp_path / "web.json"
    file.write_text('{"app": "web", "version": "v1", "pkg": {"type": "binary", "command": ["/bin/sleep", "9"], "depends_on": ["db"]}}')
    planned = node.boreas("plan", "-f", str(file))
    assert planned.returncode == 0
    assert "it would be waiting for db: there is no such app on this node" in " ".join(planned.stdout.split())
    node.apply("db", **FOREVER, **needs("web"))
    refused = node.boreas("apply", "-f", str(file))
    assert refused.returncode != 0
    assert "web would wait for itself: web -> db -> web" in " ".join((refused.stdout + refused.stderr).split())


def test_when_everything_has_died_with_the_agent_it_comes_back_in_order(node: Node, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    ready = {"readiness": {"exec": {"command": ["/usr/bin/test", "-e", str(gate)]}, "interval_seconds": 0.2, "failure_threshold": 1}}
    node.apply("db", **FOREVER, health=ready)
    node.apply("a-web", **FOREVER, **needs("db", "healthy"))
    node.reaches("a-web", "running")
    pids = [node.pid("db"), node.pid("a-web")]
    node.kill()
    gate.unlink()
    for pid in (*node.keepers(), *pids):
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: not any(map(alive, pids)))
    node.start()
    waits(node, "a-web", "waiting for db to be healthy")
    eventually(lambda: alive(node.pid("db")))
    assert not alive(node.pid("a-web"))
    gate.touch()
    node.reaches("a-web", "running")
    node.reaches("db", "running")
    assert told(node, "Started") == ["db", "a-web"] * 2


@pytest.mark.docker
def test_when_the_engine_comes_anew_containers_come_back_in_order(docker_node: Node, clean_engine: Engine, tmp_path: Path) -> None:
    node = docker_node
    gate = tmp_path / "gate"
    gate.mkdir()
    (gate / "open").touch()
    ready = {"exec": {"command": ["/bin/busybox", "test", "-e", "/gate/open"]}, "interval_seconds": 0.2, "failure_threshold": 1}
    mount = [{"host_path": str(gate), "container_path": "/gate"}]
    node.apply("db", **box(clean_engine, health={"readiness": ready}, volumes=mount))
    node.apply("a-web", **box(clean_engine, **needs("db", "healthy")))
    node.reaches("a-web", "running")
    (gate / "open").unlink()
    eventually(lambda: node.status("db")["healthy"]["level"] < 80)
    clean_engine.restart(live_restore=False)
    waits(node, "a-web", "waiting for db to be healthy")
    assert running(clean_engine, "a-web") == []
    (gate / "open").touch()
    node.reaches("a-web", "running", 60)
    assert len(running(clean_engine, "a-web")) == 1


@pytest.mark.docker
def test_a_drain_stops_dependents_first_and_its_end_starts_them_last(docker_node: Node, clean_engine: Engine) -> None:
    node = docker_node
    node.apply("a", **box(clean_engine))
    node.apply("b", **FOREVER, replicas=2, **needs("a", "healthy"))
    node.apply("c", **box(clean_engine, **needs("b", "healthy")))
    node.reaches("c", "running")
    assert node.boreas("drain", "--timeout", "30").returncode == 0
    assert told(node, "Stopped") == ["c", "b", "b", "a"]
    assert node.boreas("undrain", "--timeout", "30").returncode == 0
    assert told(node, "Started") == ["a", "b", "b", "c"] * 2


def test_a_drain_goes_on_in_order_with_another_agent_and_does_not_wait_for_what_is_held(node: Node) -> None:
    stubborn = {"type": "binary", "command": ["/bin/sh", "-c", "trap '' TERM; while :; do sleep 1; done"], "stop": {"grace_seconds": 3}}
    node.apply("db", **FOREVER)
    node.apply("web", **stubborn, **needs("db"))
    node.apply("held", **FOREVER, **needs("db"))
    for app in ("db", "web", "held"):
        eventually(lambda app=app: node.status(app)["healthy"]["level"] >= 25 and alive(node.pid(app)))  # type: ignore[misc]
    node.request("POST", "/v1/apps/held/hold", {"reason": "debugging"})
    node.request("POST", "/v1/drain", {"reason": "new disk"})
    eventually(lambda: "waiting for web to stop: the node is drained" in node.status("db")["healthy"]["msg"])
    node.restart()
    node.reaches("db", "stopped")
    assert told(node, "Stopped") == ["web", "db"]
    assert alive(node.pid("held"))
