"""Scenario 8 for the database of a real agent: no room, or no sense in it. Apps run on, and what is acknowledged is kept."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.engine.engine import Engine
from tests.engine.node import Node, alive, running_node
from tests.engine.test_scenarios_artifacts import root_only, small_disk
from tests.engine.test_scenarios_docker import box, container
from tests.waiting import eventually

QUICK: dict[str, Any] = {"rollout": {"min_healthy_seconds": 0.2}, "restart": {"initial_delay_seconds": 0.2}}
SLEEP = {"type": "binary", "command": ["/bin/sleep", "3600"], **QUICK}
GARBAGE = b"this is not a database, it is a letter. " * 2000


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with running_node(tmp_path / "node") as started:
        yield started


@contextmanager
def full(disk: Path) -> Iterator[None]:
    """Not a byte fits on the disk any more."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1024**2, 4096, 1):
            try:
                while file.write(bytes(size)):
                    pass
            except OSError as error:
                assert error.errno == errno.ENOSPC  # any other would be no full disk
    try:
        yield
    finally:
        filler.unlink()


def refused(node: Node, start: int = 0) -> tuple[int, dict[str, Any]]:
    """Apply one app after another until one is refused (the log may have room of its own for some): its number, and the answer."""
    for number in range(start, start + 2000):
        code, answer = node.request("POST", "/v1/apply", {"app": f"app-{number}", "version": "v1", "pkg": SLEEP | {"replicas": 0}})
        if code != 200:
            assert code == 503, answer
            return number, answer
    raise AssertionError("nothing was refused")


@root_only
def test_scenario_8_on_a_full_disk_apply_is_refused_apps_run_on_and_all_works_again_once_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "32M") as disk, running_node(disk) as node:
        node.apply("web", **SLEEP | {"replicas": 2})
        node.reaches("web", "running")
        assert node.process is not None
        agent, pids = node.process.pid, [node.pid("web", replica) for replica in (0, 1)]
        with full(disk):
            number, answer = refused(node)
            assert answer["success"] is False
            assert answer["message"] == f"cannot record changes in {disk / 'agent.db'}: the disk is full; it works again once there is room"
            assert node.status(f"app-{number}") == {}
            assert (node.get("/v1/health")[0], node.get("/v1/health")[1]["status"]) == (503, "unhealthy")
            assert [alive(pid) for pid in pids] == [True, True]
            assert node.status("web")["healthy"]["level"] == 100
        eventually(lambda: node.get("/v1/health")[0] == 200, 20)
        node.apply(f"app-{number}", **SLEEP)
        node.reaches(f"app-{number}", "running")
        assert [node.pid("web", replica) for replica in (0, 1)] == pids
        assert (node.process.pid, node.process.poll(), node.status("web")["restarts"]) == (agent, None, 0)
        assert node.sql("SELECT count(*) FROM v_status") == [(number + 2,)]


@root_only
def test_scenario_8_what_dies_while_the_disk_is_full_is_back_and_on_record_once_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "32M") as disk, running_node(disk) as node:
        node.apply("web", **SLEEP)
        node.reaches("web", "running")
        pid = node.pid("web")
        with full(disk):
            refused(node)
            os.kill(pid, signal.SIGKILL)
            eventually(lambda: '"msg": "reconciling failed, trying again", "app": "web"' in disk.with_suffix(".log").read_text())
        eventually(lambda: node.exits("web") == [(0, None, "SIGKILL", "")], 30)
        eventually(lambda: alive(node.pid("web")), 30)
        node.reaches("web", "running")


def is_reported_and_adopted(node: Node, app: str = "web") -> None:
    """The damaged file is kept, events say so, and the app is there as it was."""
    (kept,) = (path for path in node.work_dir.glob("agent.db.damaged-*") if not path.name.endswith(("-wal", "-shm")))
    ((message,),) = node.sql("SELECT message FROM v_events WHERE kind = 'DatabaseDamaged'")
    assert "damaged" in message
    assert "set aside" in message
    assert kept.stat().st_size > 0
    shown = node.reaches(app, "running")
    assert (shown["version"], shown["revision"], shown["replicas"], shown["restarts"]) == ("v2", 2, 1, 0), node.events(app)


def damage(node: Node) -> None:
    """Of the log, too: as long as that is whole, SQLite finds everything in it."""
    for path in node.work_dir.glob("agent.db*"):
        path.write_bytes(GARBAGE)


def deploy_twice(node: Node, **pkg: Any) -> None:
    for version in ("v1", "v2"):
        node.apply("web", version, **pkg)
        node.reaches("web", "running", revision=int(version[1]))


def test_scenario_8_a_database_damaged_at_start_is_set_aside_and_what_runs_is_adopted_by_its_run_folders(node: Node) -> None:
    deploy_twice(node, **SLEEP)
    pid = node.pid("web")
    node.kill()
    damage(node)
    node.start()
    is_reported_and_adopted(node)
    assert (node.pid("web"), alive(pid)) == (pid, True)
    assert node.apply("web", "v2", **SLEEP)["changed"] is False
    assert node.apply("web", "v3", **SLEEP)["revision"] == 3


@pytest.mark.docker
def test_scenario_8_a_database_damaged_at_start_is_set_aside_and_what_runs_is_adopted_by_its_labels(
    clean_engine: Engine, tmp_path: Path
) -> None:
    with running_node(tmp_path / "node", clean_engine.socket) as node:
        deploy_twice(node, **box(clean_engine))
        ident = container(clean_engine, "web")
        node.kill()
        damage(node)
        node.start()
        is_reported_and_adopted(node)
        assert container(clean_engine, "web") == ident


def test_scenario_8_a_database_damaged_under_a_running_agent_is_written_anew_and_no_app_notices(node: Node) -> None:
    deploy_twice(node, **SLEEP)
    pid = node.pid("web")
    (node.work_dir / "agent.db").write_bytes(GARBAGE)
    code, answer = node.request("POST", "/v1/apply", {"app": "new", "version": "v1", "pkg": SLEEP})
    assert (code, answer["success"]) == (503, False)
    assert answer["message"].endswith("it is now written anew from memory, try again")
    node.apply("new", **SLEEP)
    node.reaches("new", "running")
    is_reported_and_adopted(node)
    node.restart()
    assert (node.pid("web"), alive(pid), node.reaches("web", "running")["restarts"]) == (pid, True, 0)
    assert node.sql("SELECT app, revision FROM v_status ORDER BY app") == [("new", 1), ("web", 2)]
