"""Rollouts on a real agent with real processes: a bad version never takes a good one down."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engine.node import Node, alive, running_node
from tests.ports import free_port
from tests.waiting import eventually

QUICK: dict[str, Any] = {"rollout": {"min_healthy_seconds": 0.3}, "restart": {"initial_delay_seconds": 0.1}, "stop": {"grace_seconds": 1}}
SLEEP: dict[str, Any] = {"type": "binary", "command": ["/bin/sleep", "3600"], **QUICK}
BAD = {
    "exits at once": {"command": ["/bin/sh", "-c", "exit 3"]},
    "no such program": {"command": ["/no/such/program"]},
    "killed": {"command": ["/bin/sh", "-c", "kill -9 $$"]},
}
WHY = {
    "exits at once": "crash-looping: exited with code 3, 3 times in a row",
    "no such program": "cannot execute /no/such/program: No such file or directory",
    "killed": "crash-looping: killed by SIGKILL, 3 times in a row",
}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with running_node(tmp_path / "node") as started:
        yield started


def deployments(node: Node, app: str = "web") -> list[tuple[Any, ...]]:
    return node.sql("SELECT revision, version, kind, outcome FROM v_deployments WHERE app = ? ORDER BY id", app)


def levels(node: Node, app: str = "web", revision: int = 2) -> list[int]:
    return [level for (level,) in node.sql("SELECT level FROM v_health WHERE app = ? AND revision = ? ORDER BY id", app, revision)]


@pytest.mark.parametrize("how", BAD)
def test_scenario_9_a_bad_program_is_rolled_back_and_not_tried_again(node: Node, how: str) -> None:
    node.apply("web", "v1", **SLEEP)
    node.apply("other", "v1", **SLEEP)
    node.reaches("web", "running")
    node.reaches("other", "running")
    other = node.claim("other")
    node.apply("web", "v2", **SLEEP | BAD[how])
    shown = node.reaches("web", "degraded")
    eventually(lambda: deployments(node)[1][3] == "rolled-back")
    shown = node.status("web")
    assert (shown["version"], shown["running_version"], shown["healthy"]["level"]) == ("v2", "v1", 70)
    assert WHY[how] in shown["healthy"]["msg"]
    assert shown["blocked"]["reason"].startswith(WHY[how])
    assert deployments(node) == [
        (1, "v1", "apply", "succeeded"),
        (2, "v2", "apply", "rolled-back"),
        (1, "v1", "auto-rollback", "succeeded"),
    ]
    assert max(levels(node)) < 80
    assert node.claim("other") == other
    pid, events = node.pid("web"), len(node.events("web"))
    node.restart()
    assert node.apply("web", "v2", **SLEEP | BAD[how])["changed"] is False
    node.reaches("web", "degraded")
    assert (node.pid("web"), len(node.events("web"))) == (pid, events)
    node.request("POST", "/v1/apply", {"app": "web", "version": "v2", "pkg": SLEEP | BAD[how], "force": True})
    eventually(lambda: deployments(node)[-2][:1] == (3,) and deployments(node)[-2][3] == "rolled-back")


def test_scenario_9_a_version_that_is_never_ready_goes_back_at_its_deadline(node: Node) -> None:
    """It ends once, and is not due again before the deadline: too few ends for a crash loop."""
    node.apply("web", "v1", **SLEEP)
    node.reaches("web", "running")
    slow = {
        "rollout": {"min_healthy_seconds": 0.3, "progress_deadline_seconds": 1.5},
        "restart": {"initial_delay_seconds": 60, "max_delay_seconds": 60},
    }
    node.apply("web", "v2", **SLEEP | slow | {"command": ["/bin/sh", "-c", "exit 1"]})
    node.reaches("web", "degraded")
    eventually(lambda: deployments(node)[1][3] == "rolled-back")
    assert "not healthy within 1.5 s: exited with code 1" in node.status("web")["healthy"]["msg"]
    (seconds,) = node.sql("SELECT seconds FROM v_deployments WHERE app = 'web' AND kind = 'apply' AND revision = 2")[0]
    assert 1.5 <= seconds < 15


SERVER = """
import http.server, sys, time
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if sys.argv[2] == "hang":
            time.sleep(60)
        self.send_response(int(sys.argv[2]) if sys.argv[2].isdigit() else 200)
        self.end_headers()
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""


@pytest.mark.parametrize(("how", "why"), [("500", "HTTP 500"), ("hang", "no answer")])
def test_scenario_9_a_version_that_does_not_answer_as_it_should_is_never_said_to_serve(node: Node, how: str, why: str) -> None:
    port = free_port()
    probe = {"http": {"port": port, "path": "/"}, "interval_seconds": 0.2, "timeout_seconds": 0.3, "failure_threshold": 2}

    def server(mode: str) -> dict[str, Any]:
        rollout = {"min_healthy_seconds": 0.3, "progress_deadline_seconds": 3}
        command = [sys.executable, "-c", SERVER, str(port), mode]
        return SLEEP | {"command": command, "health": {"readiness": probe}, "rollout": rollout}

    node.apply("web", "v1", **server("200"))
    node.reaches("web", "running")
    node.apply("web", "v2", **server(how))
    shown = node.reaches("web", "degraded")
    eventually(lambda: deployments(node)[-1] == (1, "v1", "auto-rollback", "succeeded"))
    shown = node.status("web")
    assert "not healthy within 3 s: not ready: readiness probe" in shown["healthy"]["msg"]
    assert why in shown["healthy"]["msg"]
    assert max(levels(node)) < 80
    assert shown["running_version"] == "v1"
    refused = node.request(
        "POST", "/v1/plan", {"app": "web", "version": "v3", "pkg": server("200") | {"rollout": {"strategy": "start-first"}}}
    )
    assert (refused[0], refused[1]["errors"][0]["field"]) == (422, "pkg.rollout.strategy")


def test_scenario_9_the_agent_killed_during_a_rollback_finishes_it(node: Node) -> None:
    node.apply("web", "v1", **SLEEP)
    node.reaches("web", "running")
    node.apply("web", "v2", **SLEEP | BAD["exits at once"])
    for _ in range(4):
        node.restart()
    node.reaches("web", "degraded")
    eventually(lambda: deployments(node)[-1] == (1, "v1", "auto-rollback", "succeeded"))
    assert deployments(node)[1] == (2, "v2", "apply", "rolled-back")
    assert alive(node.pid("web"))


def test_scenario_10_a_database_from_before_deployments_adopts_what_runs_and_restarts_nothing(node: Node) -> None:
    """An agent that knows more fields finds heads without a deployment; what ran before goes on."""
    node.apply("web", "v1", **SLEEP | {"replicas": 2})
    node.apply("off", "v1", **SLEEP | {"replicas": 0})
    node.apply("job", "v1", type="script", command=["true"])
    node.reaches("web", "running")
    node.reaches("off", "stopped")
    node.reaches("job", "completed")
    claims, runs = [node.claim("web", 0), node.claim("web", 1)], node.exits("job")
    node.stop()
    node.write_sql("UPDATE heads SET deployment = NULL, good = NULL, good_image = NULL")
    node.write_sql("DELETE FROM deployments")
    node.start()
    assert node.reaches("web", "running")["healthy"]["level"] == 100
    assert [node.claim("web", 0), node.claim("web", 1)] == claims
    assert (node.status("off")["status"], node.status("job")["status"], node.exits("job")) == ("stopped", "completed", runs)
    assert node.status("web")["deployment"] is None
    node.apply("web", "v2", **SLEEP | BAD["exits at once"] | {"replicas": 2})
    node.reaches("web", "degraded")
    eventually(lambda: deployments(node)[-1][2:] == ("auto-rollback", "succeeded"))


def test_start_first_has_something_running_at_every_moment_and_stops_the_old_one_for_a_proven_one(node: Node) -> None:
    rollout = {"rollout": {"strategy": "start-first", "min_healthy_seconds": 1}}
    node.apply("web", "v1", **SLEEP | rollout)
    node.reaches("web", "running")
    old = node.pid("web")
    node.apply("web", "v2", **SLEEP | rollout)
    eventually(lambda: any((node.work_dir / "apps/web/instances").glob("2.0/*.claim")))
    new = node.pid("web")
    assert alive(old)
    seen: list[tuple[bool, bool]] = []
    eventually(lambda: seen.append((alive(old), alive(new))) or not alive(old))
    assert all(one or other for one, other in seen)
    assert node.reaches("web", "running", revision=2)["healthy"]["level"] == 100
    events = node.events("web")
    assert events.index("Started: started web.2.0: revision 2 (v2) wants it") < events.index(
        "Stopped: stopped web.1.0: superseded by revision 2 (v2)"
    )
    (phases,) = node.sql("SELECT phases FROM v_deployments WHERE app = 'web' AND revision = 2")[0]
    assert '"phase":"draining"' in phases


def test_start_first_leaves_the_old_one_alone_when_the_new_one_is_bad(node: Node) -> None:
    rollout = {"rollout": {"strategy": "start-first", "min_healthy_seconds": 0.3}}
    node.apply("web", "v1", **SLEEP | rollout)
    node.reaches("web", "running")
    before = node.claim("web")
    node.apply("web", "v2", **SLEEP | rollout | BAD["exits at once"])
    node.reaches("web", "degraded")
    eventually(lambda: deployments(node)[-1] == (1, "v1", "auto-rollback", "succeeded"))
    eventually(lambda: list((node.work_dir / "apps/web/instances").glob("2.0")) == [])
    assert node.claim("web") == before
    assert min(levels(node)) >= 50


def test_a_version_that_falls_over_right_after_its_success_is_taken_back(node: Node) -> None:
    node.apply("web", "v1", **SLEEP)
    node.reaches("web", "running")
    flag = node.work_dir.with_name("broken")
    line = f"while [ ! -e {flag} ]; do sleep 0.05; done; exit 7"
    node.apply("web", "v2", **SLEEP | {"command": ["/bin/sh", "-c", line]})
    node.reaches("web", "running", revision=2)
    eventually(lambda: deployments(node)[-1] == (2, "v2", "apply", "succeeded"))
    flag.touch()
    node.reaches("web", "degraded")
    eventually(lambda: deployments(node)[1:] == [(2, "v2", "apply", "rolled-back"), (1, "v1", "auto-rollback", "succeeded")])
    assert "fell over within 60 s of its success: crash-looping: exited with code 7" in node.status("web")["healthy"]["msg"]


def test_one_kill_by_hand_is_healed_and_not_rolled_back(node: Node) -> None:
    node.apply("web", "v1", **SLEEP)
    node.reaches("web", "running")
    node.apply("web", "v2", **SLEEP)
    node.reaches("web", "running", revision=2)
    pid = node.pid("web")
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: node.status("web")["restarts"] == 1 and node.pid("web") != pid)
    assert node.status("web")["healthy"]["level"] >= 80
    assert deployments(node)[-1] == (2, "v2", "apply", "succeeded")


def test_a_rollback_by_hand_with_the_command(node: Node) -> None:
    node.apply("web", "v1", **SLEEP)
    node.reaches("web", "running")
    node.apply("web", "v2", **SLEEP)
    node.reaches("web", "running", revision=2)
    done = node.boreas("rollback", "web")
    assert done.returncode == 0, done
    assert "web: ok: running (100) Running" in done.stdout
    shown = node.boreas("history", "web").stdout.splitlines()
    assert [line.split()[1:5] for line in shown[1:]] == [
        ["3", "v1", "rollback", "succeeded"],
        ["2", "v2", "apply", "succeeded"],
        ["1", "v1", "apply", "succeeded"],
    ]
    assert "v1" in node.boreas("history", "web", "--revisions").stdout
    refused = node.boreas("rollback", "web", "--to", "9")
    assert (refused.returncode, "there is no such revision on record" in refused.stderr) == (1, True)


def test_a_plan_by_the_command_is_what_the_apply_then_does(node: Node, tmp_path: Path) -> None:
    node.apply("web", "v1", **SLEEP)
    node.reaches("web", "running")
    file = tmp_path / "web.yaml"
    file.write_text('app: web\nversion: v2\npkg: {type: binary, command: [/bin/sleep, "7200"], rollout: {min_healthy_seconds: 0.3}}\n')
    shown = node.boreas("plan", "-f", str(file))
    assert shown.returncode == 0, shown
    planned = [tuple(line.split()[1:3]) for line in shown.stdout.splitlines()[2:]]
    assert planned == [("stop", "web.1.0"), ("start", "web.2.0"), ("remove", "web.1.0")]
    assert node.status("web")["revision"] == 1
    applied = node.boreas("apply", "-f", str(file))
    assert applied.returncode == 0, applied
    eventually(lambda: any("removed web.1.0" in line for line in node.events("web")))
    done = [line.split(":")[1].split()[:2] for line in node.events("web") if line.startswith(("Stopped", "Started", "Removed"))]
    assert done[-3:] == [["stopped", "web.1.0"], ["started", "web.2.0"], ["removed", "web.1.0"]]


def test_the_apply_command_fails_when_the_version_was_rolled_back(node: Node, tmp_path: Path) -> None:
    node.apply("web", "v1", **SLEEP)
    node.reaches("web", "running")
    file = tmp_path / "web.yaml"
    file.write_text("app: web\nversion: v2\npkg: {type: binary, command: [/bin/false], rollout: {min_healthy_seconds: 0.3}}\n")
    done = node.boreas("apply", "-f", str(file))
    assert done.returncode == 1
    assert "web: FAILED: degraded (70) revision 1 (v1) serves again; revision 2 (v2) failed and is blocked" in done.stdout


def test_every_end_of_what_was_brought_back_is_in_the_history(node: Node) -> None:
    node.apply("web", "v1", **SLEEP)
    node.reaches("web", "running")
    node.apply("web", "v2", **{**SLEEP, **BAD["exits at once"]})
    node.reaches("web", "degraded")

    def ends() -> list[tuple[Any, ...]]:
        return node.sql("SELECT signal FROM v_exits WHERE app = 'web' AND revision = 1 ORDER BY exited_at")

    for times in (1, 2):  # its runs are counted anew, though it has the name of what was stopped
        eventually(lambda: alive(node.pid("web")))
        os.kill(node.pid("web"), signal.SIGKILL)
        eventually(lambda: ends() == [("SIGTERM",), *[("SIGKILL",)] * times], 20)  # noqa: B023  # called at once
