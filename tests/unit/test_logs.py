"""Logs: what a line looks like, and that an output that fails or hangs holds nothing up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from boreas_agent.errors import StartupError
from boreas_agent.logs import logging_to
from boreas_agent.settings import Log

PROGRAM = """
import logging, sys
from boreas_agent.logs import logging_to
from boreas_agent.settings import Log
with logging_to(Log(**eval(sys.argv[1]))):
    log = logging.getLogger("boreas_agent.test")
    exec(sys.argv[2])
sys.stderr.write("survived")
"""


def logged(code: str, **settings: str) -> list[str]:
    """The lines that ``code`` logs to stdout in a process of its own."""
    done = run(code, stdout=subprocess.PIPE, **settings)
    return done.stdout.decode().splitlines()


def run(code: str, stdout: int, **settings: str) -> subprocess.CompletedProcess[bytes]:
    """The process, which must get past its logging."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, repr(settings), code], stdout=stdout, stderr=subprocess.PIPE, check=True, timeout=30
    )
    assert done.stderr == b"survived"
    return done


def test_a_json_line_has_time_level_logger_message_and_the_fields():
    (line,) = logged("log.info('app converged', extra={'app': 'web', 'revision': 3})")
    entry = json.loads(line)
    assert entry.pop("ts").endswith("Z")
    assert entry == {"level": "info", "logger": "boreas_agent.test", "msg": "app converged", "app": "web", "revision": 3}


def test_a_field_cannot_take_the_place_of_the_level_and_any_value_can_be_shown():
    (line,) = logged("log.info('x', extra={'level': 5, 'what': {1, }})")
    entry = json.loads(line)
    assert (entry["level"], entry["field_level"], entry["what"]) == ("info", 5, "{1}")


def test_an_error_carries_its_traceback_in_one_json_field():
    (line,) = logged("try: 1/0\nexcept Exception: log.exception('pass failed', extra={'app': 'web'})")
    assert "ZeroDivisionError" in json.loads(line)["exc"]


def test_text_shows_people_the_error_but_no_traceback_unless_they_debug():
    code = "try: 1/0\nexcept Exception: log.exception('pass failed', extra={'app': 'web'})"
    (line,) = logged(code, format="text")
    assert line.endswith('ERROR   boreas_agent.test: pass failed app=web error="ZeroDivisionError: division by zero"')
    assert any("Traceback" in line for line in logged(code, format="text", level="debug"))


def test_what_an_app_prints_cannot_forge_a_line_of_text():
    (line,) = logged("log.info('exited', extra={'tail': 'a\\n2024 ERROR x', 'empty': ''})", format="text")
    assert line.endswith(r'exited tail="a\n2024 ERROR x" empty=""')


def test_lower_levels_and_the_libraries_news_are_left_out():
    code = "log.info('no'); log.warning('yes'); logging.getLogger('docker.auth').warning('a'); logging.getLogger('alembic.x').info('no')"
    assert [json.loads(line)["msg"] for line in logged(code, level="warning")] == ["yes", "a"]
    assert [json.loads(line)["msg"] for line in logged(code, level="info")] == ["no", "yes", "a"]


def test_a_full_disk_costs_lines_and_nothing_else():
    with Path("/dev/full").open("wb") as full:
        run("for i in range(1000): log.info('line')", stdout=full.fileno())


def test_a_closed_pipe_costs_lines_and_nothing_else():
    reading, writing = os.pipe()
    os.close(reading)
    try:
        run("for i in range(1000): log.info('line')", stdout=writing)
    finally:
        os.close(writing)


def test_a_reader_that_stopped_reading_does_not_hold_the_program_up():
    reading, writing = os.pipe()
    try:
        run("for i in range(20000): log.info('line', extra={'i': i})", stdout=writing)
    finally:
        os.close(reading)
        os.close(writing)


def test_a_file_is_reopened_after_logrotate_has_moved_it(tmp_path):
    file = tmp_path / "agent.log"
    code = (
        "import os, time\nlog.info('one')\nwhile not os.path.getsize(path): os.sched_yield()\nos.rename(path, path + '.1')\nlog.info('two')"
    )
    run(f"path = {str(file)!r}\n{code}", stdout=subprocess.DEVNULL, output=str(file))
    assert json.loads(file.with_suffix(".log.1").read_text())["msg"] == "one"
    assert json.loads(file.read_text())["msg"] == "two"


def test_a_file_that_cannot_be_opened_refuses_the_start(tmp_path):
    path = tmp_path / "missing" / "agent.log"
    with pytest.raises(StartupError, match=f"cannot write log.output {path}: No such file or directory"), logging_to(Log(output=str(path))):
        pass
