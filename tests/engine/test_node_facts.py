"""What status says of the machine itself, on a real agent; and that nothing there makes status wait."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from boreas_agent import __version__
from tests.engine.engine import Engine
from tests.engine.node import Node, running_node
from tests.waiting import eventually


def facts(node: Node) -> dict[str, Any]:
    """What status says of the machine."""
    return dict(node.get("/v1/status")[1]["node"])


def pressure(node: Node) -> dict[str, Any]:
    """The condition about the disk."""
    (condition,) = facts(node)["conditions"]
    return dict(condition)


def kinds(node: Node, like: str) -> list[str]:
    """The node's own events of some kinds, oldest first."""
    return [kind for (kind,) in node.sql("SELECT kind FROM v_events WHERE app IS NULL AND kind LIKE ? ORDER BY id", like)]


def test_status_says_what_the_machine_is_from_the_first_answer_on(tmp_path: Path) -> None:
    with running_node(tmp_path / "node", AGENT_ID="pm-node-1", AGENT_HOSTNAME="pm-node-1.example.com") as node:
        seen = facts(node)
        assert (seen["id"], seen["hostname"], seen["version"]) == ("pm-node-1", "pm-node-1.example.com", __version__)
        assert seen["identity"] == (tmp_path / "node" / "identity").read_text().strip()
        disk = os.statvfs(tmp_path)
        assert seen["disk"]["path"] == str(tmp_path / "node")
        assert seen["disk"]["total"] == disk.f_blocks * disk.f_frsize
        assert 0 < seen["disk"]["free"] < seen["disk"]["total"]
        (total,) = re.findall(r"^MemTotal: +(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
        assert seen["memory"]["total"] == int(total) * 1024
        assert 0 < seen["memory"]["available"] < seen["memory"]["total"]
        assert len(seen["load"]) == 3
        assert seen["cpus"] == os.cpu_count()
        assert seen["docker"]["enabled"] is False
        answer = node.get("/v1/status")[1]
        assert list(answer) == ["apps", "healthy", "node", "operator", "drained"]
        assert answer["operator"] is None
        command = [sys.executable, "-m", "boreas_agent", "status", "--url", f"http://127.0.0.1:{node.port}"]
        shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
        assert shown[-1].startswith(f"pm-node-1: boreas-agent {__version__}, disk ")
        (started,) = node.sql("SELECT message FROM v_events WHERE kind = 'AgentStarted'")
        assert __version__ in started[0]


def test_an_engine_that_takes_calls_and_never_answers_makes_no_status_wait(tmp_path: Path) -> None:
    with closing(socket.socket(socket.AF_UNIX)) as silent:
        path = tmp_path / "docker.sock"
        silent.bind(str(path))
        silent.listen(64)
        with running_node(tmp_path / "node", str(path)) as node:
            eventually(lambda: facts(node)["docker"]["reachable"] is False, 30)
            assert "did not answer within 5 s" in facts(node)["docker"]["message"]
            begun = time.monotonic()
            for _ in range(20):
                assert node.get("/v1/status")[0] == 200
            assert time.monotonic() - begun < 4
            eventually(lambda: kinds(node, "Docker%") == ["DockerUnreachable"])


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of 64 MiB; where none can be mounted the test is skipped."""
    folder.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "boreas-test", str(folder)], check=False, capture_output=True)
    if mount.returncode != 0:
        pytest.skip(f"cannot mount a small disk: {mount.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_becomes_low_is_a_warning_until_there_is_clearly_more_room(tmp_path: Path) -> None:
    file = tmp_path / "agent.yaml"
    file.write_text(json.dumps({"agent": {"node": {"sample_interval": 1, "disk_low": "25%"}, "docker": {"enabled": False}}}))
    with small_disk(tmp_path / "disk") as disk:
        node = Node(disk / "node")
        node.arguments = ("--config", str(file))
        try:
            node.start()
            assert pressure(node)["status"] is False
            assert kinds(node, "%DiskPressure") == []
            filler = disk / "filler"
            filler.write_bytes(b"x" * (54 * 2**20))
            low = eventually(lambda: pressure(node) if pressure(node)["status"] else None, 30)
            assert low is not None
            assert "low below 16.8 MB" in low["message"]
            eventually(lambda: kinds(node, "%DiskPressure") == ["NodeHasDiskPressure"])
            assert node.get("/v1/status")[1]["healthy"]["level"] == 100
            filler.unlink()
            eventually(lambda: not pressure(node)["status"], 30)
            eventually(lambda: kinds(node, "%DiskPressure") == ["NodeHasDiskPressure", "NodeHasNoDiskPressure"])
        finally:
            node.clean_up()


@pytest.mark.docker
def test_an_engine_that_goes_and_comes_back_is_seen_with_its_version(clean_engine: Engine, tmp_path: Path) -> None:
    with running_node(tmp_path / "node", clean_engine.socket) as node:
        eventually(lambda: facts(node)["docker"]["reachable"], 30)
        assert facts(node)["docker"]["version"] == clean_engine.client.version()["Version"]
        clean_engine.stop()
        try:
            eventually(lambda: facts(node)["docker"]["reachable"] is False, 30)
        finally:
            clean_engine.start()
        eventually(lambda: facts(node)["docker"]["reachable"], 60)
        eventually(lambda: kinds(node, "Docker%") == ["DockerReachable", "DockerUnreachable", "DockerReachable"])
