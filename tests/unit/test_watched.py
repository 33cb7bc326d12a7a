"""Values made from files: renewed when the files change, kept when the new ones are of no use."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from boreas_agent.api.watched import Watched
from boreas_agent.errors import Unusable


def number(path: Path) -> Watched[int]:
    """What a file of digits holds."""

    def load() -> int:
        text = path.read_text()
        if not text.isdigit():
            raise Unusable(f"{text} is no number")
        return int(text)

    return Watched("the number", (path,), load)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "number"
    path.write_text("1")
    return path


def test_a_change_takes_hold_once_it_has_stayed_the_same_for_two_looks(file: Path) -> None:
    watched = number(file)
    file.write_text("22")
    watched.look()
    assert watched.value == 1
    file.write_text("333")
    watched.look()
    assert watched.value == 1
    watched.look()
    assert watched.value == 333


def test_what_was_asked_for_takes_hold_at_once(file: Path) -> None:
    watched = number(file)
    file.write_text("22")
    watched.look(at_once=True)
    assert watched.value == 22


def test_what_is_of_no_use_leaves_the_old_value_and_one_warning(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    watched = number(file)
    file.write_text("many")
    for _ in range(5):
        watched.look()
    assert watched.value == 1
    assert [(record.levelname, vars(record)["reason"]) for record in caplog.records] == [("WARNING", "many is no number")]


def test_a_file_that_is_gone_leaves_the_old_value_and_its_return_is_seen(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    watched = number(file)
    file.unlink()
    for _ in range(3):
        watched.look()
    assert watched.value == 1
    assert len(caplog.records) == 1
    file.write_text("4")
    watched.look()
    watched.look()
    assert watched.value == 4


def test_what_changes_while_it_is_read_is_read_again(file: Path) -> None:
    steps = iter(["", "77", "", ""])

    def load() -> int:
        value = int(file.read_text())
        if step := next(steps):
            file.write_text(step)
        return value

    watched = Watched("the number", (file,), load)
    file.write_text("66")
    watched.look(at_once=True)
    assert watched.value == 1
    watched.look()
    watched.look()
    assert watched.value == 77


def test_unchanged_files_are_not_read_again(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    watched = number(file)
    for _ in range(5):
        watched.look()
    assert caplog.records == []


def test_the_first_value_must_be_good(file: Path) -> None:
    file.write_text("none")
    with pytest.raises(Unusable):
        number(file)
