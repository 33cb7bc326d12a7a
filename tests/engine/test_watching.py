"""What those who watch a real agent are given: its events as they happen, also over its restart, and its metrics."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path
from typing import IO

from prometheus_client.parser import text_string_to_metric_families

from tests.engine.node import Node, running_node
from tests.waiting import eventually

SLEEP = {"type": "binary", "command": ["/bin/sleep", "3600"], "rollout": {"min_healthy_seconds": 0.2}}


def metric(node: Node, name: str, **labels: str) -> float | None:
    with urllib.request.urlopen(f"http://127.0.0.1:{node.port}/metrics", timeout=10) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    found = [sample.value for family in families for sample in family.samples if sample.name == name and sample.labels == labels]
    return found[0] if found else None


def test_metrics_tell_of_apps_passes_commits_and_the_keeper(tmp_path: Path) -> None:
    with running_node(tmp_path / "node") as node:
        node.apply("web", **SLEEP)
        node.reaches("web", "running")
        assert metric(node, "boreas_apps", status="running") == 1
        assert metric(node, "boreas_app_level", app="web") == 100
        assert metric(node, "boreas_keeper_up") == 1
        assert metric(node, "boreas_docker_enabled") == 0
        assert (metric(node, "boreas_reconcile_seconds_count") or 0) >= 1
        assert (metric(node, "boreas_store_commit_seconds_count") or 0) >= 2
        eventually(lambda: metric(node, "boreas_queue_apps", state="waiting") == 0)


def until(stream: IO[str], kind: str) -> list[str]:
    """The kinds of the events that come, to the first one of ``kind``."""
    seen: list[str] = []
    while not seen or seen[-1] != kind:
        line = stream.readline()
        assert line, seen
        seen.append(json.loads(line)["kind"])
    return seen


def test_events_are_followed_over_a_crash_of_the_agent_without_a_gap_or_a_double(tmp_path: Path) -> None:
    with running_node(tmp_path / "node") as node:
        url = f"http://127.0.0.1:{node.port}"
        command = [sys.executable, "-m", "boreas_agent", "events", "--follow", "-o", "json", "--limit", "1000", "--url", url]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as follower:
            deadline = threading.Timer(90, follower.kill)
            deadline.start()
            try:
                assert follower.stdout is not None
                node.apply("web", **SLEEP)
                seen = until(follower.stdout, "DeploymentSucceeded")
                node.restart()
                seen += until(follower.stdout, "AgentStarted")
                node.apply("web", "v2", **SLEEP)
                seen += until(follower.stdout, "DeploymentSucceeded")
            finally:
                deadline.cancel()
                follower.kill()
        assert seen == [kind for (kind,) in node.sql("SELECT kind FROM v_events ORDER BY id")][: len(seen)]
