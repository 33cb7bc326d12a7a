"""Which process a pid means."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from boreas_agent.drivers import procfs
from tests.waiting import eventually


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["/bin/sleep", "1000000"], env={"MARK": "here"}, start_new_session=True) as started:
        yield started
        started.kill()


def test_a_command_name_may_contain_anything() -> None:
    fields = " ".join(str(number) for number in range(4, 53))
    found = procfs.parse_stat(f"12 (a) R (b\n) S {fields}".encode())
    assert (found.pid, found.state, found.parent, found.group, found.session, found.start) == (12, "S", 4, 5, 6, 22)


def test_a_process_is_living_only_under_its_own_start_time(process: subprocess.Popen[bytes]) -> None:
    found = procfs.stat(process.pid)
    assert found is not None
    assert procfs.living(process.pid, found.start) is not None
    assert procfs.living(process.pid, found.start + 1) is None
    assert procfs.open_process(process.pid, found.start + 1) is None
    fd = procfs.open_process(process.pid, found.start)
    assert fd is not None
    os.close(fd)


def test_a_zombie_is_dead(process: subprocess.Popen[bytes]) -> None:
    found = procfs.stat(process.pid)
    assert found is not None
    process.kill()
    eventually(lambda: procfs.living(process.pid, found.start) is None)
    os.kill(process.pid, 0)  # which says that it lives
    assert procfs.open_process(process.pid, found.start) is None
    assert process.pid not in [one.pid for one in procfs.processes()]


def test_a_signal_reaches_the_process_that_is_meant_or_none(process: subprocess.Popen[bytes]) -> None:
    found = procfs.stat(process.pid)
    assert found is not None
    procfs.send(procfs.Stat(found.pid, "S", 1, 1, 1, found.start + 1), signal.SIGKILL)
    assert process.poll() is None
    procfs.send(found, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    procfs.send(found, signal.SIGKILL)


def test_what_is_not_there_is_none() -> None:
    assert procfs.stat(2**22 + 1) is None
    assert not procfs.has_environment(2**22 + 1, "A=b")


def test_an_environment_is_matched_by_whole_settings(process: subprocess.Popen[bytes]) -> None:
    eventually(lambda: procfs.has_environment(process.pid, "MARK=here"))
    assert not procfs.has_environment(process.pid, "MARK=her")
    assert not procfs.has_environment(process.pid, "ARK=here")
