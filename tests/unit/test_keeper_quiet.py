"""Logs that nobody writes to: the kernel tells of the next time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from boreas_agent.keeper.logs import Quiet


@pytest.fixture
def quiet() -> Iterator[Quiet]:
    one = Quiet()
    yield one
    os.close(one.fd)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "0.stdout.log"
    path.touch()
    return path


def test_what_is_written_to_is_quiet_no_more_and_is_told_of_once(quiet: Quiet, log: Path) -> None:
    assert quiet.add(str(log))
    assert str(log) in quiet
    assert list(quiet.ended()) == []
    with log.open("ab", buffering=0) as file:
        for _ in range(3):
            file.write(b"line\n")
    assert list(quiet.ended()) == [str(log)]
    assert str(log) not in quiet
    with log.open("ab") as file:
        file.write(b"line\n")
    assert list(quiet.ended()) == []
    assert quiet.add(str(log))


@pytest.mark.parametrize("how", [Path.unlink, lambda path: path.rename(path.with_name("elsewhere")), lambda path: os.truncate(path, 0)])
def test_what_is_deleted_moved_or_emptied_is_looked_at_again(quiet: Quiet, log: Path, how: object) -> None:
    log.write_bytes(b"line\n")
    assert quiet.add(str(log))
    how(log)  # type: ignore[operator]
    assert list(quiet.ended()) == [str(log)]


def test_what_is_discarded_is_not_told_of_and_what_is_not_there_cannot_be_quiet(quiet: Quiet, log: Path) -> None:
    assert quiet.add(str(log))
    quiet.discard(str(log))
    quiet.discard(str(log))
    log.write_bytes(b"line\n")
    assert list(quiet.ended()) == []
    assert not quiet.add(str(log.with_name("none")))


def test_of_two_names_of_one_file_one_goes_on_being_looked_at(quiet: Quiet, log: Path) -> None:
    other = log.with_name("other")
    other.hardlink_to(log)
    assert quiet.add(str(log))
    assert not quiet.add(str(other))
    log.write_bytes(b"line\n")
    assert list(quiet.ended()) == [str(log)]


def test_where_the_kernel_cannot_tell_nothing_is_quiet(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("boreas_agent.keeper.logs.inotify", lambda: -1)
    one = Quiet()
    assert not one.add(str(log))
    assert str(log) not in one
