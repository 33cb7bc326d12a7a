"""Checks, timeouts and schedules with a real agent, as its users see them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.engine.node import Node, alive, processes_with, running_node
from tests.waiting import eventually


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with running_node(tmp_path / "work") as started:
        yield started


def script(text: str, **more: Any) -> dict[str, Any]:
    return {"type": "script", "script": text, "restart": {"initial_delay_seconds": 0.1, "max_delay_seconds": 0.2}, **more}


def outcomes(node: Node, app: str = "job") -> list[str]:
    """Of every run, in the order in which they began."""
    return [outcome for (outcome,) in node.sql("SELECT outcome FROM v_runs WHERE app = ? ORDER BY id", app)]


# --- check -----------------------------------------------------------------------------------------


def test_drift_is_repaired_and_the_history_says_why(node: Node, tmp_path: Path) -> None:
    file = tmp_path / "wanted"
    check = f"echo looking at {file.name}; test -e {file}"
    node.apply("job", **script(f"touch {file}; echo made it", check=check, check_interval_seconds=0.2))
    assert node.reaches("job", "completed")["healthy"] == {"level": 100, "msg": "completed: check passed"}
    assert outcomes(node) == ["succeeded"]
    file.unlink()
    eventually(file.exists)
    eventually(lambda: outcomes(node) == ["succeeded", "succeeded"])
    node.reaches("job", "completed", revision=1)
    started = [event for event in node.events("job") if event.startswith("Started: ")]
    assert started == [
        "Started: started job.1.0: check exited with code 1: looking at wanted",
        "Started: started job.1.0: drift: check exited with code 1: looking at wanted",
    ]
    assert node.status("job")["restarts"] == 1
    assert node.sql("SELECT exit_code, output_tail FROM v_runs") == [(0, "made it\n")] * 2


def test_where_the_check_passes_the_script_is_never_run(node: Node, tmp_path: Path) -> None:
    node.apply("job", **script(f"touch {tmp_path}/ran", check="exit 0", check_interval_seconds=0.1))
    assert node.reaches("job", "completed")["healthy"]["msg"] == "completed: check passed"
    node.restart()
    assert node.reaches("job", "completed")["healthy"]["level"] == 100
    assert (outcomes(node), (tmp_path / "ran").exists()) == ([], False)


@pytest.mark.skipif(os.getuid() != 0, reason="only root may become somebody else")
@pytest.mark.parametrize("head", ["", "#!/bin/bash\n"])
def test_a_check_is_asked_as_the_script_would_run(node: Node, head: str) -> None:
    check = f'{head}echo "$(id -un) $PWD $WORD $BOREAS_APP $#"; exit 3'
    node.apply("job", **script("exit 1", check=check, user="nobody", working_dir="/usr", environment={"WORD": "a b"}, args=["x"]))
    node.reaches("job", "failed")
    assert "CheckFailed: job.1.0: check exited with code 3: nobody /usr a b job 0" in node.events("job")


def test_a_script_that_does_not_help_fails_with_clear_words_and_is_healed_from_outside(node: Node, tmp_path: Path) -> None:
    file = tmp_path / "wanted"
    node.apply("job", **script("true", check=f"test -e {file}", check_interval_seconds=0.3))
    assert node.reaches("job", "failed")["healthy"] == {"level": 0, "msg": "exited with code 0, and yet check exited with code 1"}
    assert outcomes(node) == ["succeeded"] * 3
    file.touch()
    assert node.reaches("job", "completed")["healthy"]["level"] == 100
    assert len(outcomes(node)) == 3


@pytest.mark.parametrize(
    ("check", "why"),
    [
        ("#!/no/such/interpreter", "the interpreter it names does not exist"),
        ("echo before it hangs; sleep 1000321", "the command did not end within 0.5 s: before it hangs"),
        ("kill -9 $$", "the command was killed by SIGKILL"),
    ],
)
def test_a_check_that_cannot_answer_is_a_failure_and_runs_nothing(node: Node, check: str, why: str) -> None:
    node.apply("job", **script("true", check=check, timeout_seconds=0.5))
    msg = node.reaches("job", "failed")["healthy"]["msg"]
    assert msg.startswith("cannot ask the check of job.1.0: ")
    assert msg.endswith(why)
    assert outcomes(node) == []
    eventually(lambda: not processes_with("sleep\x001000321"))


def test_the_check_decides_after_a_run_of_which_nobody_saw_the_end(node: Node, tmp_path: Path) -> None:
    file = tmp_path / "wanted"
    node.apply("job", **script("exec sleep 1000000", check=f"test -e {file}", check_interval_seconds=0.2))
    node.reaches("job", "deploying")
    eventually(lambda: outcomes(node) == ["running"])
    for pid in (*node.keepers(), node.pid("job")):
        os.kill(pid, signal.SIGKILL)
    assert node.reaches("job", "failed")["healthy"]["msg"].startswith("outcome unknown: ")
    assert outcomes(node) == ["unknown"]
    file.touch()
    node.reaches("job", "completed")
    assert outcomes(node) == ["unknown"]


def test_a_check_under_way_when_the_agent_dies_dies_too_and_is_asked_again(node: Node, tmp_path: Path) -> None:
    gate, asked = tmp_path / "gate", tmp_path / "asked"
    node.apply("job", **script(f"echo ran >> {tmp_path}/ran", check=f"echo >> {asked}; test -e {gate} || sleep 1000; exit 1", retries=0))
    eventually(asked.exists)
    gate.touch()
    node.restart()
    node.reaches("job", "failed")
    assert (tmp_path / "ran").read_text() == "ran\n"
    assert outcomes(node) == ["succeeded"]


# --- timeout ---------------------------------------------------------------------------------------

STUBBORN = "trap '' TERM; (trap '' TERM; sleep 1000000) & setsid sleep 1000001 & sleep 1000002 & wait; wait"


def test_a_run_that_takes_too_long_is_ended_with_its_whole_tree(node: Node, tmp_path: Path) -> None:
    node.apply("job", **script(f"echo begun; {STUBBORN}", timeout_seconds=0.7, retries=0, stop={"grace_seconds": 0.2}))
    assert node.reaches("job", "failed")["healthy"] == {"level": 0, "msg": "timed out after 0.7 s"}
    assert node.sql("SELECT outcome, reason, output_tail FROM v_runs") == [("timed-out", "stopped: timed out after 0.7 s", "begun\n")]
    eventually(lambda: not processes_with("BOREAS_APP=job"))
    assert node.exits("job")[0][3] == "stopped: timed out after 0.7 s"


def test_the_time_of_a_run_goes_on_while_no_agent_runs(node: Node) -> None:
    node.apply("job", **script("exec sleep 1000000", timeout_seconds=2, retries=0))
    eventually(lambda: outcomes(node) == ["running"])
    pid = node.pid("job")
    node.restart()
    assert node.reaches("job", "failed", 10)["healthy"]["msg"] == "timed out after 2 s"
    assert not alive(pid)
    ((seconds,),) = node.sql("SELECT seconds FROM v_exits")
    assert 2 <= seconds < 6


def test_a_run_within_its_time_is_left_alone(node: Node) -> None:
    node.apply("job", **script("exit 0", timeout_seconds=30))
    node.reaches("job", "completed")
    assert outcomes(node) == ["succeeded"]


# --- schedule --------------------------------------------------------------------------------------


def times(node: Node) -> list[str]:
    """The scheduled times that were run for."""
    return [at for (at,) in node.sql("SELECT scheduled_at FROM v_runs WHERE started_at IS NOT NULL ORDER BY id")]


def test_a_script_runs_at_its_times_and_says_when_the_next_one_is(node: Node) -> None:
    node.apply("job", **script("echo $BOREAS_APP", schedule="* * * * * *"))
    healthy = node.reaches("job", "completed")["healthy"]
    assert healthy["level"] == 100
    assert "next run at " in healthy["msg"]
    eventually(lambda: outcomes(node).count("succeeded") >= 3)
    found = times(node)
    assert len(found) == len(set(found))
    late = node.sql("SELECT max(julianday(started_at) - julianday(scheduled_at)) * 86400 FROM v_runs")[0][0]
    assert late < 2
    assert node.sql("SELECT outcome FROM v_deployments") == [("succeeded",)]


def test_before_its_first_run_it_is_as_it_should_be(node: Node) -> None:
    node.apply("job", **script("exit 1", schedule="0 0 1 1 *"))
    healthy = node.reaches("job", "completed")["healthy"]
    assert healthy["level"] == 100
    assert healthy["msg"].startswith("waiting for its first run; next run at ")
    assert node.request("POST", "/v1/apps/job/restart")[0] == 200, "a restart runs it now"
    failed = node.reaches("job", "failed")["healthy"]
    assert failed["level"] == 0
    assert failed["msg"].startswith("exited with code 1; next run at ")
    assert node.sql("SELECT scheduled_at, outcome FROM v_runs") == [(None, "failed")] * 3


def test_a_time_zone_is_looked_up_without_holding_anybody_up(node: Node) -> None:
    node.apply("job", **script("true", schedule={"cron": "0 12 1 7 *", "time_zone": "America/New_York"}))
    assert node.reaches("job", "completed")["healthy"]["msg"].endswith("-07-01T16:00:00.000Z")
    node.restart()
    assert node.reaches("job", "completed")["healthy"]["level"] == 100


def test_runs_never_overlap_and_a_run_that_is_skipped_is_on_record(node: Node) -> None:
    node.apply("job", **script("sleep 1.5", schedule="* * * * * *"))
    eventually(lambda: outcomes(node).count("skipped") >= 2 and outcomes(node).count("succeeded") >= 2, 20)
    whole = node.sql("SELECT started_at, finished_at FROM v_runs WHERE finished_at IS NOT NULL ORDER BY started_at")
    assert all(end <= begin for (_, end), (begin, _) in pairwise(whole))
    assert any(event.startswith("RunSkipped: ") for event in node.events("job"))


def test_a_scheduled_run_goes_on_without_the_agent_and_no_time_is_run_for_twice(node: Node, tmp_path: Path) -> None:
    log = tmp_path / "log"
    node.apply("job", **script(f"echo run >> {log}; sleep 0.3", schedule="*/2 * * * * *"))
    for _ in range(4):
        eventually(lambda: "running" in outcomes(node), 10)
        node.restart()
    eventually(lambda: "running" not in outcomes(node), 10)
    node.request("DELETE", "/v1/apps/job")
    eventually(lambda: node.status("job") == {}, 20)
    found = times(node)
    assert len(found) == len(set(found)) >= 4
    assert len(log.read_text().splitlines()) == len(found)


def test_what_was_missed_while_the_agent_was_down_is_made_up_for_once(node: Node, tmp_path: Path) -> None:
    node.apply("job", **script("true", schedule="* * * * * *"))
    eventually(lambda: "succeeded" in outcomes(node))
    node.kill()
    before = len(times(node))
    down = node.sql("SELECT max(scheduled_at) FROM v_runs")[0][0]
    eventually(lambda: node.sql("SELECT strftime('%s', 'now') - strftime('%s', ?) > 4", down) == [(1,)], 10)
    node.start()
    eventually(lambda: len(times(node)) > before)
    missed = node.sql("SELECT count(*) FROM v_runs WHERE outcome = 'missed' AND scheduled_at > ?", down)[0][0]
    assert missed >= 2
    assert any(event.startswith("RunMissed: ") for event in node.events("job"))
