"""The scenarios that must hold, on a real agent with real processes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engine.node import Node, alive, processes_with, running_node
from tests.waiting import eventually

QUICK = {"rollout": {"min_healthy_seconds": 0.2}}
SLEEP = {"type": "binary", "command": ["/bin/sleep", "3600"], **QUICK}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with running_node(tmp_path / "node") as started:
        yield started


def sh(line: str, **more: Any) -> dict[str, Any]:
    return {"type": "binary", "command": ["/bin/sh", "-c", line], **QUICK, **more}


def test_scenario_1_killing_the_agent_ten_times_touches_no_process(node: Node) -> None:
    node.apply("web", **SLEEP | {"replicas": 2})
    node.apply(
        "job", type="script", command=["echo once >> $OUT", "exec sleep 3600"], environment={"OUT": str(node.work_dir / "out")}, **QUICK
    )
    node.reaches("web", "running")
    node.reaches("job", "running")
    before = [node.claim("web", 0), node.claim("web", 1), node.claim("job")]
    for round_ in range(10):
        node.kill()
        node.start(wait=False)
        if round_ % 2:  # in the middle of a pass of its own making; else in the middle of its start
            eventually(lambda: node.get("/v1/health")[0] == 200)
            node.apply("noise", f"v{round_}", **SLEEP | {"replicas": 0})
    eventually(lambda: node.get("/v1/ready")[0] == 200)
    assert [node.claim("web", 0), node.claim("web", 1), node.claim("job")] == before
    assert all(alive(claim["pid"]) for claim in before)
    assert node.reaches("web", "running")["restarts"] == 0
    assert node.exits("web") == node.exits("job") == []
    assert (node.work_dir / "out").read_text() == "once\n"


def test_an_exit_while_no_agent_runs_is_known_afterwards(node: Node) -> None:
    node.apply("web", **sh("trap 'exit 7' TERM; while :; do sleep 0.05; done"))
    node.reaches("web", "running")
    pid = node.pid("web")
    node.kill()
    os.kill(pid, signal.SIGTERM)
    eventually(lambda: not alive(pid))
    node.start()
    node.reaches("web", "running")
    assert node.exits("web")[0][:3] == (0, 7, None)


def test_scenario_6_a_recorded_pid_that_belongs_to_a_stranger_is_never_signalled(node: Node) -> None:
    node.apply("web", **SLEEP)
    node.reaches("web", "running")
    pid, folder = node.pid("web"), next((node.work_dir / "apps/web/instances").glob("*.0"))
    node.kill()
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not alive(pid))
    eventually(lambda: list(folder.glob("*.exit")) != [])
    stranger = subprocess.Popen(["/bin/sleep", "3600"])
    try:
        for recorded in folder.glob("*.exit"):
            recorded.unlink()
        claim = folder / "1.claim"
        claim.write_text(
            claim.read_text().replace(f'"pid": {pid}', f'"pid": {stranger.pid}').replace(f'"pid":{pid}', f'"pid":{stranger.pid}')
        )
        node.start()
        node.reaches("web", "running")
        assert node.pid("web") != stranger.pid
        assert stranger.poll() is None
        node.request("DELETE", "/v1/apps/web")
        eventually(lambda: node.status("web") == {})
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_scenario_11_of_versions_that_follow_each_other_within_a_second_only_the_last_one_stays(node: Node) -> None:
    for version in ("v1", "v2", "v3", "v4"):
        node.apply("web", version, **SLEEP)
    assert node.reaches("web", "running", revision=4)["version"] == "v4"
    started = [line for line in node.events("web") if line.startswith("Started")]
    assert sum("(v2)" in line or "(v3)" in line for line in started) <= 1
    superseded = {revision for (revision,) in node.sql("SELECT revision FROM v_events WHERE app = 'web' AND kind = 'Superseded'")}
    assert {2, 3} <= superseded
    assert len(processes_with("BOREAS_APP=web\0BOREAS_VERSION")) + len(processes_with("BOREAS_APP=web")) >= 1
    assert len({pid for pid in processes_with("BOREAS_REVISION=4") if alive(pid)}) == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_scenario_13_a_killed_process_is_back_and_history_says_what_happened(node: Node, number: signal.Signals) -> None:
    node.apply("web", **SLEEP)
    node.reaches("web", "running")
    killed = node.pid("web")
    os.kill(killed, number)
    eventually(lambda: node.pid("web") != killed and alive(node.pid("web")))
    eventually(lambda: node.status("web")["restarts"] == 1)
    assert node.exits("web")[0][:3] == (0, None, number.name)
    assert any(f"killed by {number.name}" in line for line in node.events("web") if line.startswith("Started"))


def test_scenario_13_a_stopped_process_is_continued(node: Node) -> None:
    node.apply("web", **SLEEP)
    node.reaches("web", "running")
    pid = node.pid("web")
    stat = Path(f"/proc/{pid}/stat")
    os.kill(pid, signal.SIGSTOP)
    eventually(lambda: _state_in(stat) == "T")
    node.request("POST", "/v1/apps/web/hold")
    node.request("POST", "/v1/apps/web/release")  # any wake shows it; nobody hears of a SIGSTOP
    eventually(lambda: _state_in(stat) in "SR")
    eventually(lambda: any(line.startswith("Resumed") for line in node.events("web")))
    assert node.pid("web") == pid


def _state_in(stat: Path) -> str:
    return stat.read_text().rsplit(")", 1)[1].split()[0]


def test_scenario_14_a_process_that_ignores_sigterm_and_leaves_children_is_stopped_as_a_whole(node: Node) -> None:
    marker = f"marker-{os.getpid()}"
    line = (
        "trap '' TERM; setsid sh -c 'trap \"\" TERM; sleep 3600 & while :; do sleep 1; done' & (sleep 3600 &) ; while :; do sleep 1; done"
    )
    node.apply("stubborn", **sh(line, environment={"MARK": marker}, stop={"grace_seconds": 0.5}))
    node.reaches("stubborn", "running")
    eventually(lambda: len(processes_with(marker)) >= 4)
    node.request("DELETE", "/v1/apps/stubborn")
    eventually(lambda: node.status("stubborn") == {}, 20)
    assert processes_with(marker) == []


def test_scenario_14_a_program_that_exits_at_once_backs_off_and_heals_when_the_cause_is_gone(node: Node) -> None:
    cure = node.work_dir / "cure"
    node.apply("loop", **sh(f"test -e {cure} || exit 3; exec sleep 3600", restart={"initial_delay_seconds": 0.1, "max_delay_seconds": 0.5}))
    failed = node.reaches("loop", "failed")
    assert failed["healthy"]["level"] == 0
    assert "exited with code 3" in failed["healthy"]["msg"]
    cure.touch()
    assert node.reaches("loop", "running")["healthy"]["level"] >= 80


def test_scenario_14_output_without_end_is_bounded(node: Node) -> None:
    node.apply("noisy", log={"max_size": "10Mi", "max_files": 1}, **sh("head -c 60000000 /dev/zero | tr '\\0' 'x'; exec sleep 3600"))
    node.reaches("noisy", "running")
    logs = node.work_dir / "apps/noisy/logs"

    def allocated() -> int:
        return sum(file.stat().st_blocks * 512 for file in logs.iterdir())

    eventually(lambda: sum(file.stat().st_size for file in logs.iterdir()) >= 60_000_000)
    eventually(lambda: allocated() < 25_000_000, 20)


def test_a_script_runs_once_a_revision_and_its_failure_is_final_after_three_attempts(node: Node) -> None:
    out = node.work_dir / "out"
    node.apply("ok", type="script", command=[f"echo a >> {out}", f"echo b >> {out}"])
    done = node.reaches("ok", "completed")
    assert done["healthy"]["level"] == 100
    assert out.read_text() == "a\nb\n"
    node.apply("bad", type="script", command=["echo why >&2", "exit 4"], restart={"initial_delay_seconds": 0.05})
    failed = node.reaches("bad", "failed")
    assert failed["healthy"] == {"level": 0, "msg": "exited with code 4"}
    assert [row[1] for row in node.exits("bad")] == [4, 4, 4]
    node.restart()
    node.request("POST", "/v1/apps/ok/restart")
    eventually(lambda: out.read_text() == "a\nb\na\nb\n")


def test_a_script_whose_keeper_was_killed_is_failed_with_outcome_unknown_and_not_run_again(node: Node) -> None:
    out = node.work_dir / "out"
    node.apply("job", type="script", command=[f"echo once >> {out}", "exec sleep 3600"], **QUICK)
    node.reaches("job", "running")
    pid, keepers = node.pid("job"), node.keepers()
    for keeper in keepers:
        os.kill(keeper, signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    failed = node.reaches("job", "failed")
    assert "unknown" in failed["healthy"]["msg"]
    node.restart()
    assert node.reaches("job", "failed")
    assert out.read_text() == "once\n"


def test_scenario_16_three_hundred_apps_in_a_burst_all_converge(node: Node) -> None:
    def submit(numbers: range) -> None:
        for number in numbers:
            node.apply(f"app-{number}", type="script", command=["true"])

    threads = [threading.Thread(target=submit, args=(range(start, 300, 4),)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(node.get("/v1/status")[1]["apps"]) == 300
    eventually(lambda: all(app["status"] == "completed" for app in node.get("/v1/status")[1]["apps"]), 90)
    assert node.get("/v1/status")[1]["healthy"] == {"level": 100, "msg": "300 of 300 apps healthy"}


def test_scenario_17_a_second_agent_on_one_work_dir_is_refused(node: Node) -> None:
    second = Node(node.work_dir)
    command = [sys.executable, "-m", "boreas_agent", "--work-dir", str(node.work_dir), "--host", "127.0.0.1", "--port", str(second.port)]
    refused = subprocess.run(
        command, capture_output=True, text=True, timeout=30, check=False, env=os.environ | {"AGENT_DOCKER_ENABLED": "false"}
    )
    assert refused.returncode == 2
    assert str(node.work_dir) in refused.stderr
    assert str(node.process and node.process.pid) in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_taken_port_is_named(node: Node, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "boreas_agent", "--work-dir", str(tmp_path / "other"), "--host", "127.0.0.1", "--port", str(node.port)]
    refused = subprocess.run(
        command, capture_output=True, text=True, timeout=30, check=False, env=os.environ | {"AGENT_DOCKER_ENABLED": "false"}
    )
    assert refused.returncode == 2
    assert str(node.port) in refused.stderr
    assert "Traceback" not in refused.stderr


def test_an_empty_database_in_a_used_work_dir_adopts_what_runs(node: Node) -> None:
    node.apply("web", **SLEEP | {"replicas": 2, "environment": {"SECRET": "s3cret"}})
    node.apply("job", type="script", command=["true"])
    node.reaches("web", "running")
    node.reaches("job", "completed")
    before = [node.claim("web", 0), node.claim("web", 1)]
    node.stop()
    for file in node.work_dir.glob("agent.db*"):
        file.unlink()
    node.start()
    adopted = node.reaches("web", "running")
    assert (adopted["version"], adopted["revision"], adopted["replicas"]) == ("v1", 1, 2)
    assert [node.claim("web", 0), node.claim("web", 1)] == before
    assert all(alive(claim["pid"]) for claim in before)
    assert node.reaches("job", "completed")["revision"] == 1
    assert node.apply("web", **SLEEP | {"replicas": 2, "environment": {"SECRET": "s3cret"}})["changed"] is False


def test_replicas_are_scaled_without_touching_those_that_stay(node: Node) -> None:
    node.apply("web", **SLEEP)
    node.reaches("web", "running")
    first = node.pid("web")
    node.apply("web", **SLEEP | {"replicas": 3})
    eventually(lambda: node.status("web")["healthy"]["level"] == 100)
    assert node.pid("web") == first
    node.apply("web", **SLEEP | {"replicas": 0})
    assert node.reaches("web", "stopped")["healthy"]["level"] == 0
    assert not alive(first)


def test_a_held_app_is_left_dead_until_it_is_released(node: Node) -> None:
    node.apply("web", **SLEEP)
    node.reaches("web", "running")
    assert node.request("POST", "/v1/apps/web/hold", {"reason": "strace"})[0] == 200
    killed = node.pid("web")
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: node.exits("web") != [])
    assert "strace" in node.status("web")["healthy"]["msg"]
    assert node.pid("web") == killed
    node.request("POST", "/v1/apps/web/release")
    eventually(lambda: node.pid("web") != killed)


def test_apply_waits_until_the_app_has_converged(node: Node) -> None:
    body = {"app": "web", "version": "v1", "pkg": SLEEP}
    status, answer = node.request("POST", "/v1/apply?wait=20", body)
    assert (status, answer["status"], answer["healthy"]["level"]) == (200, "running", 100)
    body = {"app": "bad", "version": "v1", "pkg": {"type": "script", "command": ["exit 1"], "restart": {"max_attempts": 1}}}
    status, answer = node.request("POST", "/v1/apply?wait=20", body)
    assert (status, answer["status"], answer["healthy"]["level"]) == (200, "failed", 0)


def test_a_docker_app_says_so_where_docker_is_disabled_and_everything_else_works(node: Node) -> None:
    node.apply("box", type="docker", image="x:1")
    node.apply("web", **SLEEP)
    node.reaches("web", "running")
    eventually(lambda: "Docker is disabled" in node.status("box")["healthy"]["msg"])
    assert node.status("box")["healthy"]["level"] < 50


def test_a_revision_that_only_scales_up_is_not_healthy_before_its_new_replicas_are(node: Node) -> None:
    line = "if [ $BOREAS_REPLICA -ge 1 ]; then sleep 0.3; exit 1; fi; exec sleep 3600"
    node.apply("web", **sh(line, rollout={"min_healthy_seconds": 1}))
    node.reaches("web", "running")
    status, answer = node.request(
        "POST", "/v1/apply?wait=3", {"app": "web", "version": "v1", "pkg": sh(line, rollout={"min_healthy_seconds": 1}, replicas=3)}
    )
    assert status == 200
    assert answer["healthy"]["level"] < 80


def test_a_version_that_is_applied_again_while_it_is_being_stopped_is_started_anew(node: Node) -> None:
    told = node.work_dir / "told"
    slow = sh(f"trap 'touch {told}; sleep 1; exit 0' TERM; while :; do sleep 0.05; done", stop={"grace_seconds": 8})
    node.apply("web", "v1", **slow)
    node.reaches("web", "running")
    eventually(
        lambda: float(node.sql("SELECT (julianday('now') - julianday(max(at))) * 86400 FROM v_events WHERE kind = 'Started'")[0][0]) > 1.1
    )
    old = node.pid("web")
    node.apply("web", "v2", **SLEEP)
    eventually(told.exists)
    node.apply("web", "v1", **slow)
    node.reaches("web", "running", revision=3)
    assert node.pid("web") != old
    assert not alive(old)


def test_a_hold_ends_when_its_time_is_over(node: Node) -> None:
    node.apply("web", **SLEEP)
    node.reaches("web", "running")
    node.request("POST", "/v1/apps/web/hold", {"seconds": 0.5})
    eventually(lambda: node.status("web")["held"] is None, 5)


def test_a_keeper_folder_that_was_deleted_is_made_again(node: Node) -> None:
    node.apply("web", **SLEEP)
    node.reaches("web", "running")
    pid, keepers = node.pid("web"), node.keepers()
    shutil.rmtree(node.work_dir / "keeper")
    for keeper in keepers:
        os.kill(keeper, signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: node.pid("web") != pid and alive(node.pid("web")), 30)
