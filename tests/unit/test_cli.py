"""The command line where no agent is needed: usage, exit statuses, and that nobody ever sees a traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from boreas_agent import __version__
from boreas_agent.cli.client import CommandFailed
from boreas_agent.cli.documents import read
from boreas_agent.cli.progress import Verdict, gone, healthy
from boreas_agent.cli.render import clean, node_lines
from tests.ports import free_port
from tests.waiting import eventually

COMMAND = [sys.executable, "-m", "boreas_agent"]


def boreas(*arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    done = subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, input=stdin, env=os.environ | environment, timeout=30, check=False
    )
    assert "Traceback" not in done.stdout + done.stderr
    return done


def test_version_is_printed_and_the_exit_status_is_0():
    done = boreas("--version")
    assert (done.stdout, done.returncode) == (f"boreas-agent {__version__}\n", 0)


def test_help_lists_the_commands_that_exist_and_no_others():
    shown = boreas("--help").stdout
    there = (
        "run",
        "apply",
        "plan",
        "status",
        "history",
        "events",
        "rollback",
        "restart",
        "remove",
        "hold",
        "release",
        "drain",
        "undrain",
        "logs",
        "sql",
    )
    for name in there:
        assert f"\n  {name} " in shown


REFUSED = {
    "--port abc": "boreas-agent: cannot start: --port must be a whole number, not 'abc'",
    "run --port 70000": "boreas-agent: cannot start: --port must be less than or equal to 65535, not '70000'",
    "--config /nonexistent": "boreas-agent: cannot start: the configuration file /nonexistent does not exist",
    "--tls-cert /a": "boreas-agent: cannot start: server.tls_cert (--tls-cert) needs server.tls_key (--tls-key) beside it",
    "--tls-cert /none/a --tls-key /none/b": "boreas-agent: cannot start: cannot use the certificate /none/a: No such file or directory",
    "--token-file /none/a": "boreas-agent: cannot start: cannot use the token file /none/a: No such file or directory",
    "--port 1 status": "boreas-agent: --port is an option of 'run'; write it after the command, where the command has it",
    "bogus": "boreas-agent: No such command 'bogus'. Did you mean 'logs'?",
    "apply": "boreas-agent: name at least one file: boreas-agent apply -f FILE",
}


@pytest.mark.parametrize("arguments", REFUSED)
def test_wrong_usage_is_one_line_on_stderr_and_exit_status_2(arguments):
    done = boreas(*arguments.split())
    assert (done.stderr, done.stdout, done.returncode) == (REFUSED[arguments] + "\n", "", 2)


def test_a_bad_value_in_the_environment_stops_the_start():
    done = boreas("run", AGENT_SERVER_PORT="x")
    assert (done.stderr, done.returncode) == ("boreas-agent: cannot start: AGENT_SERVER_PORT must be a whole number, not 'x'\n", 2)


@pytest.mark.parametrize("arguments", [["status"], ["status", "web", "-o", "json"], ["remove", "web"], ["hold", "web"], ["restart", "web"]])
def test_an_agent_that_is_away_is_named_with_a_way_out(arguments):
    url = f"http://127.0.0.1:{free_port()}"
    done = boreas(*arguments, BOREAS_URL=url)
    says = f"boreas-agent: cannot reach the agent at {url}: connection refused; is it running there? (--url or BOREAS_URL names another)\n"
    assert (done.stderr, done.returncode) == (says, 1)


@pytest.mark.parametrize("url", ["localhost:8081", "http://", "ftp://x", "http://x:abc", "http://[::1"])
def test_an_address_that_is_none_is_refused_with_an_example(url):
    done = boreas("status", "--url", url)
    assert "it must look like http://127.0.0.1:8081" in done.stderr
    assert done.returncode == 1


def test_the_flag_beats_the_environment_and_may_stand_before_the_command():
    for arguments in (["--url", "http://127.0.0.1:1", "status"], ["status", "--url", "http://127.0.0.1:1"]):
        assert "at http://127.0.0.1:1:" in boreas(*arguments, BOREAS_URL="http://127.0.0.1:2").stderr


def test_ctrl_c_ends_a_command_quietly_with_130():
    command = [*COMMAND, "status", "--watch", "--url", f"http://127.0.0.1:{free_port()}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None and watching.stderr is not None
        try:
            eventually(lambda: "cannot reach" in watching.stdout.readline(), 20)
            watching.send_signal(signal.SIGINT)
            assert watching.wait(20) == 130
        finally:
            watching.kill()
        assert watching.stderr.read().strip() == ""


def test_a_reader_that_leaves_early_is_no_error_worth_a_traceback(tmp_path):
    file = tmp_path / "agent.db"
    subprocess.run([sys.executable, "-c", f"import sqlite3; sqlite3.connect({str(file)!r}).execute('create table t (x)')"], check=True)
    query = "with recursive n(x) as (select 1 union all select x + 1 from n limit 100000) select x from n"
    command = [*COMMAND, "sql", "--work-dir", str(tmp_path), "-o", "json", query]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as asking:
        assert asking.stdout is not None and asking.stderr is not None
        asking.stdout.readline()
        asking.stdout.close()
        assert asking.stderr.read() == b""


def test_started_with_closed_streams_it_still_ends_with_the_right_status():
    done = subprocess.run(["/bin/sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *COMMAND, "--port", "x"], timeout=30, check=False)
    assert done.returncode == 2


# --- what apply reads ----------------------------------------------------------------------------


def written(folder: Path, **files: str) -> list[str]:
    """The paths of files with these contents; ``a_yaml`` becomes ``a.yaml``."""
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)
    return [str(folder / name.replace("_", ".")) for name in files]


def test_yaml_and_json_with_several_documents_are_read_in_order(tmp_path):
    names = written(
        tmp_path,
        a_yaml="app: a\n---\n# nothing\n---\napp: b\n---\n",
        b_json='{\n\t"app": "c"}',
        c_json='[{"app": "d"}, {"app": "e"}]',
        d_json='{"app": "f"}\n{"app": "g"}\n\n',
    )
    assert [document.app for document in read(names)] == ["a", "b", "c", "d", "e", "f", "g"]
    assert [document.app for document in read([str(tmp_path)])] == ["a", "b", "c", "d", "e", "f", "g"]


def test_a_version_that_looks_like_a_date_stays_the_text_that_was_written(tmp_path):
    (document,) = read(written(tmp_path, a_yaml="app: a\nversion: 2024-01-01"))
    assert document.body["version"] == "2024-01-01"


UNREADABLE = {
    "": "there is no app in it",
    "- 1": "it must be a mapping with app, version and pkg",
    "just text": "it must be a mapping with app, version and pkg",
    "app: a\napp: b": "the key 'app' appears twice",
    '{"app": "a", "app": "b"}': "the key 'app' appears twice",
    '{"app": "a",,}': "the body is not JSON",
    "app: [": "expected the node content",
    "app: .nan": "cannot send .* as JSON",
    "app: !!binary aGk=": "cannot send .* as JSON",
    "app: &a [*a]": "cannot send .* as JSON",
    "app: a\n---\napp: a": r"cannot apply a twice: it is in .* \(document 1\) and in .* \(document 2\)",
}


@pytest.mark.parametrize("text", UNREADABLE)
def test_a_file_that_makes_no_sense_is_refused_before_anything_is_sent(tmp_path, text):
    with pytest.raises(CommandFailed, match=UNREADABLE[text]):
        read(written(tmp_path, a_yaml=text))


# --- when following ends -------------------------------------------------------------------------


def seen(status: str, level: int, revision: int = 2, **more: object) -> dict[str, object]:
    """A status object."""
    return {"app": "web", "status": status, "healthy": {"level": level, "msg": "why"}, "revision": revision, "replicas": 1} | more


JUDGED = [
    (seen("running", 100), True),
    (seen("running", 80), True),
    (seen("completed", 100), True),
    (seen("stopped", 0, replicas=0), True),
    (seen("deploying", 79), None),
    (seen("degraded", 60), None),
    (seen("pending", 1), None),
    (seen("failed", 0), False),
    (seen("removing", 0), False),
    (seen("running", 100, revision=3), False),
    (seen("pending", 1, held={"by": "me"}), False),
    (None, False),
]


@pytest.mark.parametrize(("state", "ok"), JUDGED)
def test_apply_ends_when_the_revision_it_made_is_healthy_failed_or_gone(state, ok):
    assert healthy(2)(state).ok is ok


def test_remove_ends_when_the_app_is_gone_or_was_applied_anew():
    assert gone(None) == Verdict(True, "removed")
    assert gone(seen("removing", 0)).ok is None
    assert gone(seen("pending", 1)).ok is False


def test_an_app_cannot_drive_the_terminal_with_its_messages():
    assert clean("a\x1b[2Jb\x07\u202ec") == "a�[2Jb��c"


NODE = {
    "id": "pm-1",
    "version": "1.2.3",
    "docker": {"enabled": True, "reachable": True, "version": "27.1", "message": ""},
    "disk": {"total": 50_000_000_000, "free": 4_000_000_000},
    "memory": {"total": 8_000_000_000, "available": 2_000_000_000},
    "load": [0.5, 0.4, 0.3],
    "conditions": [{"type": "DiskPressure", "status": True, "message": "4.0 GB free"}, {"type": "Other", "status": False, "message": "x"}],
}
OPERATOR = {"url": "http://operator-pm:8080", "registered": True, "last_error": None}
MACHINE = "pm-1: boreas-agent 1.2.3, disk 4.0 GB of 50.0 GB free, memory 2.0 GB of 8.0 GB free, load 0.50"


def test_status_ends_with_the_machine_in_a_line_and_one_more_for_each_thing_to_know():
    assert node_lines({"apps": [], "node": NODE, "operator": OPERATOR}) == [
        f"{MACHINE}, Docker 27.1, registered with http://operator-pm:8080",
        "DiskPressure: 4.0 GB free",
    ]


def test_an_engine_that_is_away_and_a_controller_that_is_not_reached_are_told():
    away = NODE | {"docker": {"reachable": False, "version": None, "message": "cannot reach Docker"}, "conditions": []}
    lost = OPERATOR | {"registered": False, "last_error": "connection refused"}
    assert node_lines({"apps": [{"type": "docker"}], "node": away, "operator": lost}) == [
        MACHINE,
        "Docker: cannot reach Docker",
        "cannot register with http://operator-pm:8080: connection refused",
    ]


def test_a_machine_that_never_had_an_engine_and_needs_none_is_not_blamed_for_it():
    away = NODE | {"docker": {"reachable": False, "version": None, "message": "cannot reach Docker"}, "conditions": []}
    assert node_lines({"apps": [{"type": "binary"}], "node": away, "operator": None}) == [MACHINE]


def test_an_agent_that_says_nothing_of_its_machine_is_shown_as_before():
    assert node_lines({"apps": []}) == []
    assert node_lines({"apps": [], "node": NODE | {"disk": None, "load": None, "memory": None, "docker": None, "conditions": None}}) == [
        "pm-1: boreas-agent 1.2.3"
    ]
