"""Draining a node: everything stops and stays stopped, nothing that was asked for is lost."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.node import Node, alive, running_node
from tests.waiting import eventually

FOREVER = {"type": "binary", "command": ["/bin/sleep", "3600"], "rollout": {"min_healthy_seconds": 0.2}, "stop": {"grace_seconds": 2}}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with running_node(tmp_path / "node") as running:
        yield running


def boreas(node: Node, *arguments: str) -> tuple[int, str]:
    """A command against the node: its exit status, and all that it said."""
    command = [sys.executable, "-m", "boreas_agent", *arguments]
    environment = os.environ | {"BOREAS_URL": f"http://127.0.0.1:{node.port}"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=90, check=False)
    return done.returncode, done.stdout


def node_events(node: Node) -> list[str]:
    return [kind for (kind,) in node.sql("SELECT kind FROM v_events WHERE app IS NULL ORDER BY id") if "Agent" not in kind]


def test_a_drained_node_stays_empty_over_restarts_and_runs_everything_again_afterwards(node):
    node.apply("web", **FOREVER, replicas=2)
    node.apply("hello", type="script", command=["echo hello"])
    node.reaches("web", "running")
    node.reaches("hello", "completed")
    pids = [node.pid("web", 0), node.pid("web", 1)]

    code, said = boreas(node, "drain", "--reason", "new disk", "--timeout", "30")
    assert code == 0, said
    assert not any(alive(pid) for pid in pids)
    web = node.status("web")
    assert (web["status"], web["replicas"]) == ("stopped", 2)
    assert web["healthy"]["msg"] == "stopped: the node is drained by api 127.0.0.1: new disk"
    assert node.status("hello")["status"] == "completed"
    assert "the node is drained by api 127.0.0.1" in boreas(node, "status")[1]

    node.restart()
    node.apply("late", **FOREVER)
    node.reaches("late", "stopped")
    assert node.status("web")["status"] == "stopped"

    code, said = boreas(node, "undrain", "--timeout", "30")
    assert code == 0, said
    assert node.reaches("web", "running")["healthy"] == {"level": 100, "msg": "2 of 2 replicas running"}
    node.reaches("late", "running")
    assert node.status("web")["restarts"] == 0
    assert len(node.exits("hello")) == 1
    assert node_events(node) == ["Drained", "Undrained"]


def test_a_script_under_way_is_waited_for_and_one_that_is_applied_meanwhile_is_not_started(node, tmp_path):
    gate = tmp_path / "gate"
    node.apply("slow", type="script", command=[f"while [ ! -e {gate} ]; do sleep 0.05; done", "echo done"])
    eventually(lambda: node.status("slow").get("status") in {"running", "deploying"} and node.claim("slow"))
    code, said = boreas(node, "drain", "--timeout", "1")
    assert code == 1
    assert "slow: not there after 1 s" in said
    node.apply("later", type="script", command=["true"])
    assert "drained" in node.reaches("later", "stopped")["healthy"]["msg"]

    gate.touch()
    code, said = boreas(node, "drain", "--timeout", "30")
    assert code == 0, said
    assert [code for _, code, _, _ in node.exits("slow")] == [0]
    boreas(node, "undrain", "--no-wait")
    node.reaches("later", "completed")
    assert len(node.exits("slow")) == 1


def test_an_app_that_is_held_is_left_alone_and_the_drain_says_so(node):
    node.apply("web", **FOREVER)
    node.reaches("web", "running")
    pid = node.pid("web")
    node.request("POST", "/v1/apps/web/hold", {"reason": "debugging"})
    code, said = boreas(node, "drain", "--timeout", "20")
    assert code == 1
    assert "web: FAILED: it is held" in said
    assert alive(pid)
    node.request("POST", "/v1/apps/web/release")
    node.reaches("web", "stopped")
    boreas(node, "drain", "--disable", "--no-wait")
    node.reaches("web", "running")


def test_an_app_can_be_removed_from_a_drained_node(node):
    node.apply("web", **FOREVER)
    node.reaches("web", "running")
    assert node.request("POST", "/v1/drain")[1]["changed"] is True
    assert node.request("POST", "/v1/drain")[1]["changed"] is False
    node.request("DELETE", "/v1/apps/web")
    eventually(lambda: node.status("web") == {})
    assert node.get("/v1/status")[1]["drained"]["by"] == "api 127.0.0.1"
    assert node.request("POST", "/v1/undrain")[1]["drained"] is None


def test_a_drain_survives_that_the_database_is_damaged_under_the_running_agent(node):
    node.apply("web", **FOREVER)
    node.reaches("web", "running")
    node.request("POST", "/v1/drain")
    node.reaches("web", "stopped")
    for name in ("agent.db", "agent.db-wal", "agent.db-shm"):
        (node.work_dir / name).unlink(missing_ok=True)
    eventually(lambda: node.request("POST", "/v1/apply", {"app": "late", "version": "v1", "pkg": FOREVER})[0] == 200)
    node.restart()
    assert node.get("/v1/status")[1]["drained"]["by"] == "api 127.0.0.1"
    assert node.status("web")["status"] == "stopped"
    node.request("POST", "/v1/undrain")
    node.reaches("web", "running")
