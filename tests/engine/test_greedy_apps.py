"""Apps that want more than they may have, beside one that is quiet, on a real agent: they get it with nobody else noticing."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engine.engine import Engine
from tests.engine.node import Node, alive, running_node
from tests.engine.test_process_limits import HOG, needs
from tests.engine.test_scenarios_docker import box, container, containers, running
from tests.waiting import eventually

pytestmark = pytest.mark.docker
PROGRAM = {"type": "binary", "rollout": {"min_healthy_seconds": 0.2}, "stop": {"grace_seconds": 0.5}}
BOMB = "b() { b & exec sleep 3600; }; b"
"""Each process makes another one and stays."""
PIDS = 20


@pytest.fixture
def node(clean_engine: Engine, tmp_path: Path) -> Iterator[Node]:
    with running_node(tmp_path / "node", clean_engine.socket) as started:
        started.apply("quiet-container", **box(clean_engine))
        started.apply("quiet-program", command=["/bin/sleep", "3600"], **PROGRAM)
        for app in ("quiet-container", "quiet-program"):
            started.reaches(app, "running")
        yield started


def quiet(node: Node, engine: Engine) -> tuple[str, int, list[Any]]:
    """Who the quiet ones are, and what is said of them."""
    shown = [node.status(app) for app in ("quiet-container", "quiet-program")]
    return container(engine, "quiet-container"), node.pid("quiet-program"), [(one["healthy"], one["restarts"]) for one in shown]


def hog(engine: Engine, kind: str) -> dict[str, Any]:
    greedy: dict[str, Any] = {"resources": {"memory_limit": "48Mi"}, "restart": {"policy": "never"}}
    if kind == "docker":
        return box(engine, command=["/bin/tail", "/dev/zero"], **greedy)
    return PROGRAM | {"command": ["/usr/bin/env", "python3", "-c", HOG], **greedy}


@pytest.mark.parametrize("kind", ["docker", "binary"])
def test_a_memory_hog_is_killed_alone_and_status_and_history_say_why(node: Node, clean_engine: Engine, kind: str) -> None:
    if kind == "binary":
        needs("memory")
    before = quiet(node, clean_engine)
    node.apply("hog", **hog(clean_engine, kind))
    failed = node.reaches("hog", "failed")
    assert failed["healthy"]["level"] == 0
    assert "killed by SIGKILL (out of memory)" in failed["healthy"]["msg"]
    assert node.sql("SELECT signal, oom_killed FROM v_exits WHERE app = 'hog'") == [("SIGKILL", 1)]
    assert quiet(node, clean_engine) == before
    assert node.sql("SELECT app FROM v_exits WHERE app <> 'hog'") == []


def test_a_fork_bomb_in_a_container_stays_contained_and_leaves_as_a_whole(node: Node, clean_engine: Engine) -> None:
    before = quiet(node, clean_engine)
    node.apply("bomb", **box(clean_engine, command=["/bin/sh", "-c", BOMB], resources={"pids_limit": PIDS}))
    seen: list[int] = []

    def spread() -> bool:
        seen.extend(len(processes(clean_engine, ident)) for ident in running(clean_engine, "bomb"))
        return max(seen, default=0) >= PIDS - 1  # the last one could make no other, and ended

    eventually(spread, 30)
    assert max(seen) <= PIDS
    os.kill(before[1], signal.SIGKILL)
    eventually(lambda: node.pid("quiet-program") != before[1] and alive(node.pid("quiet-program")), 5)
    assert container(clean_engine, "quiet-container") == before[0]
    left = [pid for ident in running(clean_engine, "bomb") for pid in processes(clean_engine, ident)]
    node.request("DELETE", "/v1/apps/bomb")
    eventually(lambda: node.status("bomb") == {}, 30)
    assert containers(clean_engine, "bomb") == []
    assert not any(alive(pid) for pid in left)


def processes(engine: Engine, ident: str) -> list[int]:
    """The pids of all that runs in a container, as the machine sees them; none where it has just ended."""
    try:
        pid = engine.client.inspect_container(ident)["State"]["Pid"]
        own = Path(f"/proc/{pid}/ns/pid").readlink() if pid else None
    except OSError:
        return []
    return [] if own is None else [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and namespace(entry) == own]


def namespace(process: Path) -> Path | None:
    try:
        return (process / "ns/pid").readlink()
    except OSError:
        return None
