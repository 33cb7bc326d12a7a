"""What apps write, as people see it: through the API and with the command, over everything that may happen meanwhile."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.engine.node import Node, running_node
from tests.waiting import eventually


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with running_node(tmp_path / "node") as made:
        yield made


def ticking(word: str) -> dict[str, object]:
    line = f"i=0; while :; do i=$((i+1)); echo {word} $i; sleep 0.05; done"
    return {"type": "binary", "command": ["/bin/sh", "-c", line], "rollout": {"min_healthy_seconds": 0.2}}


def test_the_command_shows_the_last_lines_of_a_stream(node: Node) -> None:
    node.apply("talk", type="script", command=["echo one", "echo two", "echo bad >&2"])
    node.reaches("talk", "completed")
    assert node.boreas("logs", "talk", "--stream", "stdout", "--tail", "1").stdout == "two\n"
    assert node.boreas("logs", "talk", "--stream", "stderr").stdout == "bad\n"
    unknown = node.boreas("logs", "nobody")
    assert (unknown.returncode, unknown.stderr) == (1, "boreas-agent: there is no app named 'nobody'\n")


@pytest.mark.parametrize("end", [Node.kill, Node.stop])
def test_the_command_follows_over_an_agents_end_and_a_rollout_without_losing_or_doubling_a_line(
    node: Node, tmp_path: Path, end: Callable[[Node], object]
) -> None:
    node.apply("tick", **ticking("first"))
    node.reaches("tick", "running")
    printed = tmp_path / "printed"
    with printed.open("wb") as output:
        command = [sys.executable, "-m", "boreas_agent", "logs", "tick", "--follow", "--url", f"http://127.0.0.1:{node.port}"]
        following = subprocess.Popen(command, stdout=output, stderr=subprocess.PIPE)
    try:
        eventually(lambda: printed.read_text().count("first") > 5, 20)
        end(node)
        node.start()
        written = lines_written(node)
        eventually(lambda: f"first {written}\n" in printed.read_text(), 20)
        node.apply("tick", version="v2", **ticking("second"))
        eventually(lambda: "second 9\n" in printed.read_text(), 30)
    finally:
        following.terminate()
        _, complaint = following.communicate(timeout=10)
    lines = printed.read_text().splitlines()
    for word in ("first", "second"):
        numbers = [int(line.split()[1]) for line in lines if line.startswith(word)]
        assert numbers == list(range(1, len(numbers) + 1))
    assert b"waiting for it" in complaint


def lines_written(node: Node) -> int:
    """How many lines there were at this moment."""
    return (node.work_dir / "apps/tick/logs/0.stdout.log").read_text().count("\n")


def test_a_removed_app_ends_the_command(node: Node) -> None:
    node.apply("tick", **ticking("first"))
    node.reaches("tick", "running")
    command = [sys.executable, "-m", "boreas_agent", "logs", "tick", "--follow", "--url", f"http://127.0.0.1:{node.port}"]
    following = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert following.stdout is not None
    assert following.stdout.readline() == b"first 1\n"
    node.request("DELETE", "/v1/apps/tick")
    following.communicate(timeout=20)
    assert following.returncode == 0
