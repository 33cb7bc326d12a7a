"""The agent ends when it is told to, whatever it is doing, and leaves the apps alone."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.engine.node import Node, alive, running_node
from tests.waiting import eventually


def test_sigterm_ends_the_agent_with_status_0_and_leaves_the_app_running(tmp_path: Path) -> None:
    with running_node(tmp_path / "node") as node:
        node.apply("web", type="binary", command=["/bin/sleep", "3600"], rollout={"min_healthy_seconds": 0.1})
        node.reaches("web", "running")
        pid = node.pid("web")
        assert node.stop() == 0
        assert alive(pid)
        assert ("AgentStopped",) in node.sql("SELECT kind FROM v_events WHERE app IS NULL")


def test_sigterm_during_the_start_is_not_forgotten(tmp_path: Path) -> None:
    node = Node(tmp_path / "node")
    node.start(wait=False)
    assert node.process is not None
    eventually(lambda: (tmp_path / "node" / "lock").exists() and (tmp_path / "node" / "agent.db").exists(), 30)
    os.kill(node.process.pid, signal.SIGTERM)
    assert node.process.wait(30) in (0, -signal.SIGTERM)
    eventually(lambda: not node.keepers(), 15)
