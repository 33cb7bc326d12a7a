"""Probes of real processes by a real agent."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.engine.node import Node, processes_with, running_node
from tests.ports import free_port
from tests.waiting import eventually

QUICK = {"rollout": {"min_healthy_seconds": 0.3}, "restart": {"initial_delay_seconds": 0.1, "max_delay_seconds": 0.3}}
OFTEN = {"interval_seconds": 0.1, "failure_threshold": 3, "timeout_seconds": 1}


@pytest.fixture(scope="module")
def one_for_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with running_node(tmp_path_factory.mktemp("probes") / "node") as started:
        yield started


@pytest.fixture
def node(one_for_all: Node) -> Iterator[Node]:
    """Without an app of an earlier test."""
    yield one_for_all
    for one in one_for_all.get("/v1/status")[1]["apps"]:
        one_for_all.request("DELETE", f"/v1/apps/{one['app']}")


@pytest.fixture
def app(request: pytest.FixtureRequest) -> str:
    """Another one for each test."""
    return f"web-{zlib.crc32(request.node.name.encode())}"


class Server:
    """A binary app whose answers the test decides."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.file = folder / "says"
        program = str(Path(__file__).with_name("answering.py"))
        self.startup = {"tcp": {"port": self.port}, **OFTEN, "failure_threshold": 300}
        self.pkg = {"type": "binary", "command": [sys.executable, "-I", "-S", program, str(self.port), str(self.file)], **QUICK}

    def says(self, word: str) -> None:
        draft = self.file.with_suffix(".new")
        draft.write_text(word)
        draft.rename(self.file)

    def http(self, **more: Any) -> dict[str, Any]:
        return {"http": {"port": self.port, "path": "/healthz"}, **OFTEN, **more}


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return Server(tmp_path)


def level(node: Node, app: str, at: int, words: str = "") -> dict[str, Any]:
    """Wait for this level and these words; the whole status object."""

    def there() -> dict[str, Any] | None:
        seen = node.status(app)
        return seen if seen and seen["healthy"]["level"] == at and words in seen["healthy"]["msg"] else None

    try:
        found = eventually(there, 30)
    except AssertionError:
        raise AssertionError(f"{app} did not reach {at} {words!r}: {node.status(app)} {node.events(app)[-8:]}") from None
    assert found is not None
    return found


def test_an_app_counts_as_healthy_only_once_its_probes_pass(node: Node, app: str, server: Server) -> None:
    server.says("503")
    live = {"exec": {"command": ["/bin/true"]}, **OFTEN}
    node.apply(app, **server.pkg, health={"startup": server.startup, "readiness": server.http(), "liveness": live})
    seen = level(node, app, 25, f"HTTP 503 from :{server.port}/healthz: said 503")
    assert seen["status"] == "deploying"
    server.says("200")
    node.reaches(app, "running")
    assert level(node, app, 100)["restarts"] == 0
    server.says("500")
    level(node, app, 0, f"not ready: readiness probe failed 3 times: HTTP 500 from :{server.port}/healthz: said 500")
    server.says("204")
    level(node, app, 100)
    assert node.exits(app) == []
    levels = [row[0] for row in node.sql("SELECT level FROM v_health WHERE app = ? ORDER BY at", app)]
    assert {20, 25, 30, 100, 85, 0} <= set(levels)
    words = node.sql("SELECT status, level, msg FROM v_health WHERE app = ? ORDER BY at", app)
    assert all(one != other for one, other in pairwise(words)), "one row a change, not one a poll"


def test_a_failing_liveness_probe_restarts_in_place_and_history_says_why(node: Node, app: str, server: Server) -> None:
    node.apply(app, **server.pkg, health={"startup": server.startup, "liveness": server.http()})
    node.reaches(app, "running")
    before = node.claim(app)
    server.says("500")
    eventually(lambda: node.claim(app)["pid"] != before["pid"], 20)
    server.says("200")
    reason = f"liveness probe failed 3 times: HTTP 500 from :{server.port}/healthz: said 500"
    replica, code, killed_by, why = eventually(lambda: node.exits(app))[0]
    assert (replica, code, killed_by, why) == (0, None, "SIGTERM", f"stopped: {reason}")
    node.reaches(app, "running")
    assert node.status(app)["revision"] == 1
    told = node.events(app)
    assert f"Unhealthy: {app}.1.0 is unhealthy: {reason}" in told
    assert f"Stopped: stopped {app}.1.0: {reason}" in told
    assert any(line.startswith(f"Started: started {app}.1.0: it was stopped: liveness probe failed") for line in told)


def test_what_fails_its_liveness_probe_again_and_again_is_a_crash_loop_by_name(node: Node, app: str, server: Server) -> None:
    server.says("500")
    node.apply(app, **server.pkg, health={"liveness": server.http()})
    level(node, app, 0, "crash-looping: liveness probe failed 3 times: ")
    assert node.status(app)["status"] == "failed"


def test_a_program_that_ends_well_when_its_probe_has_it_stopped_has_failed_all_the_same(node: Node, app: str, tmp_path: Path) -> None:
    program = {"type": "binary", "command": ["/bin/sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.05; done"], **QUICK}
    node.apply(app, **program | {"restart": {"policy": "never"}}, health={"liveness": {"exec": {"command": ["/bin/false"]}, **OFTEN}})
    level(node, app, 0, "liveness probe failed 3 times: the command exited with code 1")
    assert node.exits(app)[0][1] == 0


def test_a_startup_probe_that_never_passes_has_it_restarted(node: Node, app: str) -> None:
    port = free_port()
    health = {"startup": {"tcp": {"port": port}, **OFTEN, "failure_threshold": 2}}
    node.apply(app, type="binary", command=["/bin/sleep", "3600"], **QUICK, health=health)
    reason = eventually(lambda: node.exits(app), 20)[0][3]
    assert reason == f"stopped: startup probe failed 2 times: cannot connect to :{port}: connection refused"


def test_a_probe_that_hangs_is_a_failed_one_and_nothing_of_it_stays(node: Node, app: str) -> None:
    mark = f"probe-{node.port}"
    hanging = {"exec": {"command": ["/bin/sh", "-c", f"sleep 1000; : {mark}"]}, "interval_seconds": 0.1, "timeout_seconds": 0.2}
    node.apply(app, type="binary", command=["/bin/sleep", "3600"], **QUICK, health={"readiness": {**hanging, "failure_threshold": 1}})
    level(node, app, 25, "not ready: readiness probe failed: the command did not end within 0.2 s")
    node.apply(app, type="binary", command=["/bin/sleep", "3600"], **QUICK)
    node.reaches(app, "running")
    eventually(lambda: not processes_with(mark))


def test_an_agent_that_starts_anew_finds_healthy_what_was_healthy_and_asks_on(node: Node, app: str, server: Server) -> None:
    node.apply(
        app, **server.pkg, health={"startup": server.startup, "readiness": server.http(interval_seconds=2), "liveness": server.http()}
    )
    level(node, app, 100)
    before = node.claim(app)
    node.kill()
    node.start()
    assert node.status(app)["healthy"]["level"] == 100
    assert node.claim(app) == before
    since = node.sql("SELECT max(at) FROM v_events WHERE kind = 'AgentStarted'")[0][0]
    assert node.sql("SELECT level FROM v_health WHERE app = ? AND at > ? AND level < 80", app, since) == []
    server.says("500")
    eventually(lambda: node.claim(app)["pid"] != before["pid"], 20)


def test_a_change_of_the_probes_alone_replaces_nothing(node: Node, app: str, server: Server) -> None:
    node.apply(app, **server.pkg, health={"readiness": server.http()})
    level(node, app, 100)
    before = node.claim(app)
    server.says("500")
    level(node, app, 0)
    assert node.apply(app, **server.pkg)["changed"]
    assert level(node, app, 100)["revision"] == 2
    assert node.claim(app) == before


def test_what_a_probe_sends_in_its_headers_is_shown_to_nobody(node: Node, app: str, server: Server) -> None:
    headers = {"X-Token": "s3cr3t-header"}
    server.says("500")
    node.apply(app, **server.pkg, health={"readiness": {"http": {"port": server.port, "headers": headers}, **OFTEN}})
    level(node, app, 25, "HTTP 500")
    shown = str(node.get(f"/v1/apps/{app}/revisions")) + str(node.sql("SELECT * FROM v_revisions")) + str(node.events(app))
    assert "'X-Token': '***'" in shown
    assert "s3cr3t-header" not in shown + node.work_dir.with_suffix(".log").read_text()
