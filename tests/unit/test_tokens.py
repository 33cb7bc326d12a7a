"""The token file: what is in it, whose it is, and that nothing of it is ever repeated."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from boreas_agent.api.tokens import MAX_TOKENS, load
from boreas_agent.errors import Unusable
from tests.certificates import token_file

READER = "reader-3f9c0a77d2e84b61"
WRITER = "writer-8b1d44e09c7f2a35"


def test_every_line_is_a_token_with_a_name_and_a_scope(tmp_path: Path) -> None:
    tokens = load(token_file(tmp_path / "t", "# for the dashboards", "", f"grafana:read:{READER}", f"  ci:apply:{WRITER}\r", "  # end"))
    found = tokens.find(READER), tokens.find(WRITER)
    assert [(token.name, token.scope) for token in found if token] == [("grafana", "read"), ("ci", "apply")]


def test_a_token_may_contain_colons_and_a_name_may_have_several(tmp_path: Path) -> None:
    tokens = load(token_file(tmp_path / "t", f"ci:apply:{WRITER}:a:b", f"ci:read:{WRITER}"))
    first, second = tokens.find(f"{WRITER}:a:b"), tokens.find(WRITER)
    assert first and second
    assert (first.scope, second.scope) == ("apply", "read")


@pytest.mark.parametrize("wrong", ["", " ", WRITER[:-1], WRITER + "x", WRITER.upper(), "ci", f"ci:apply:{WRITER}", "\udcff", "ü" * 20])
def test_what_is_not_exactly_a_token_is_none(tmp_path: Path, wrong: str) -> None:
    assert load(token_file(tmp_path / "t", f"ci:apply:{WRITER}")).find(wrong) is None


WRONG = {
    "nonsense": "line 1 is not NAME:SCOPE:TOKEN",
    f"ci:{WRITER}": "neither read nor apply",
    f"ci:{WRITER}:apply": "neither read nor apply",
    f"{WRITER}:apply": "the token in line 1 is missing",
    f"c i:apply:{WRITER}": "line 1 is not NAME:SCOPE:TOKEN",
    f":apply:{WRITER}": "line 1 is not NAME:SCOPE:TOKEN",
    f"ci:APPLY:{WRITER}": "neither read nor apply",
    "ci:apply:": "the token in line 1 is missing",
    f"ci:apply:{WRITER} more": "contains spaces",
    f"ci:apply:{WRITER}ü": "not ASCII",
    f"a:apply:{WRITER}\nb:read:{WRITER}": "lines 1 and 2 hold the same token",
    "": "there is no token in it",
    "# ci": "there is no token in it",
    "\n".join(f"a:read:{WRITER}{number}" for number in range(MAX_TOKENS + 1)): f"at most {MAX_TOKENS} are allowed",
}


@pytest.mark.parametrize("text", WRONG, ids=lambda text: text[:30].replace(WRITER, "TOKEN"))
def test_a_wrong_line_is_named_by_its_number_and_nothing_of_it_is_repeated(tmp_path: Path, text: str) -> None:
    file = token_file(tmp_path / "t", text)
    with pytest.raises(Unusable, match=re.escape(WRONG[text])) as refused:
        load(file)
    assert str(file) in str(refused.value)
    assert WRITER[:8] not in str(refused.value)


def test_a_file_that_is_not_text_is_refused_without_its_bytes(tmp_path: Path) -> None:
    file = tmp_path / "t"
    file.write_bytes(f"ci:apply:{WRITER}".encode() + b"\xff")
    file.chmod(0o600)
    with pytest.raises(Unusable, match="is not UTF-8 text") as refused:
        load(file)
    assert refused.value.__cause__ is None
    assert "xff" not in str(refused.value)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o602, 0o610, 0o777])
def test_a_file_on_which_others_have_rights_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(Unusable, match=rf"others than its owner have rights on it \(mode {mode:04o}\); chmod 600"):
        load(token_file(tmp_path / "t", f"ci:apply:{WRITER}", mode=mode))


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_file_of_ones_own_is_used(tmp_path: Path, mode: int) -> None:
    assert load(token_file(tmp_path / "t", f"ci:apply:{WRITER}", mode=mode)).find(WRITER)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    file = token_file(tmp_path / "t", f"ci:apply:{WRITER}")
    os.chown(file, 12345, 0)
    with pytest.raises(Unusable, match="it belongs to user 12345"):
        load(file)


def test_a_short_token_is_used_with_a_warning_that_does_not_repeat_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert load(token_file(tmp_path / "t", f"ci:apply:{WRITER}", "me:read:short")).find("short")
    (record,) = caplog.records
    assert record.__dict__["lines"] == "2"
    assert "short" not in record.__dict__["lines"] and "found by trying" in record.getMessage()


def test_what_is_not_a_file_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    for name, why in (("fifo", "it is not a file"), (".", "it is not a file"), ("missing", "No such file or directory")):
        with pytest.raises(Unusable, match=why):
            load(tmp_path / name)


def test_a_token_is_not_in_what_python_shows_of_it(tmp_path: Path) -> None:
    tokens = load(token_file(tmp_path / "t", f"ci:apply:{WRITER}"))
    assert WRITER not in repr(tokens)
    assert "digest" not in repr(tokens)
