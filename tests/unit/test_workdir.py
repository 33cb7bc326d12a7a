"""The work dir: private, locked, with one identity for ever."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from boreas_agent.errors import StartupError
from boreas_agent.workdir import WorkDir
from tests.waiting import eventually

HOLD = """
import sys
from pathlib import Path
from boreas_agent.workdir import WorkDir
work_dir = WorkDir.open(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_the_folder_is_made_private_with_all_its_parents(tmp_path: Path) -> None:
    with WorkDir.open(tmp_path / "a" / "b") as work_dir:
        assert stat.S_IMODE(work_dir.path.stat().st_mode) == 0o700
        assert {file.name for file in work_dir.path.iterdir()} == {"lock", "identity"}
        assert work_dir.database == tmp_path / "a" / "b" / "agent.db"
        assert (work_dir.apps.name, work_dir.keeper.name) == ("apps", "keeper")


def test_an_open_folder_is_closed_to_others(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with WorkDir.open(tmp_path):
        assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


def test_the_identity_is_made_once(tmp_path: Path) -> None:
    with WorkDir.open(tmp_path) as first:
        made = first.identity
    assert str(uuid.UUID(made)) == made
    with WorkDir.open(tmp_path) as second:
        assert second.identity == made


@pytest.mark.parametrize("text", ["", "garbage", "1234", "{8a0b6f0e-52a5-4f0e-8a55-1d3c0c6a2f10}", "\0" * 36])
def test_a_damaged_identity_is_refused_and_not_replaced(tmp_path: Path, text: str) -> None:
    (tmp_path / "identity").write_text(text)
    with pytest.raises(StartupError, match="does not hold a UUID"):
        WorkDir.open(tmp_path)
    assert (tmp_path / "identity").read_text() == text


def test_a_lost_identity_is_not_made_again_beside_a_database(tmp_path: Path) -> None:
    (tmp_path / "agent.db").touch()
    with pytest.raises(StartupError, match="the file identity is missing"):
        WorkDir.open(tmp_path)
    assert not (tmp_path / "identity").exists()


def test_a_start_interrupted_while_the_identity_was_written_begins_again(tmp_path: Path) -> None:
    (tmp_path / "identity.partial").write_text("1b0e")
    with WorkDir.open(tmp_path) as work_dir:
        assert uuid.UUID(work_dir.identity)


def test_a_second_agent_is_told_the_folder_and_the_pid_of_the_first(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        with pytest.raises(StartupError) as refused:
            WorkDir.open(tmp_path)
        assert str(refused.value) == f"cannot use {tmp_path}: another agent (pid {first.pid}) is using it"
        first.kill()
        first.wait()
    WorkDir.open(tmp_path).close()


def test_closing_lets_the_next_agent_in(tmp_path: Path) -> None:
    WorkDir.open(tmp_path).close()
    WorkDir.open(tmp_path).close()


def test_programs_that_the_agent_starts_do_not_inherit_the_lock(tmp_path: Path) -> None:
    work_dir = WorkDir.open(tmp_path)
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, close_fds=False) as child:
        eventually(lambda: b"sys.stdin" in Path(f"/proc/{child.pid}/cmdline").read_bytes())
        work_dir.close()
        WorkDir.open(tmp_path).close()


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartupError, match="it is not a folder"):
        WorkDir.open(tmp_path / "file")
    with pytest.raises(StartupError, match="cannot use"):
        WorkDir.open(tmp_path / "file" / "below")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_that_belongs_to_somebody_else_is_refused(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, 12345)
    with pytest.raises(StartupError, match="belongs to user id 12345"):
        WorkDir.open(tmp_path)


@pytest.mark.skipif(not Path("/proc/1").exists(), reason="needs a file system that nobody can write")
def test_a_folder_that_cannot_be_written_is_refused() -> None:
    with pytest.raises(StartupError, match="cannot use /proc/boreas"):
        WorkDir.open(Path("/proc/boreas"))
