"""How scripts are executed and what is kept of their output."""

from __future__ import annotations

from pathlib import Path

from boreas_agent.drivers import script
from boreas_agent.spec import ScriptPkg


def test_lines_run_under_a_shell_that_stops_at_the_first_error() -> None:
    pkg = ScriptPkg(type="script", command=("a", "b"), args=("x",))
    assert script.text(pkg) == "a\nb\n"
    assert script.argv(pkg, "/f") == ("/bin/sh", "-e", "/f", "x")


def test_a_text_runs_under_its_own_interpreter_or_a_plain_shell() -> None:
    plain, own = ScriptPkg(type="script", script="echo", args=("x",)), ScriptPkg(type="script", script="#!/bin/cat\nx")
    assert script.argv(plain, "/f") == ("/bin/sh", "/f", "x")
    assert script.argv(own, "/f") == ("/f",)
    assert script.text(own) == "#!/bin/cat\nx"


def logs(tmp_path: Path, out: bytes, err: bytes) -> list[tuple[Path, int, int | None]]:
    (tmp_path / "out").write_bytes(b"before" + out)
    (tmp_path / "err").write_bytes(err + b"after")
    return [(tmp_path / "out", 6, None), (tmp_path / "err", 0, len(err))]


def test_the_tail_is_of_this_run_alone(tmp_path: Path) -> None:
    assert script.tail(logs(tmp_path, b"out\n", b"err\n")) == "out\nerr\n"
    assert script.tail([(tmp_path / "none", 0, None), (tmp_path / "out", 10**6, None)]) == ""


def test_a_long_output_gives_its_end_and_a_short_one_leaves_its_room(tmp_path: Path) -> None:
    found = script.tail(logs(tmp_path, b"o" * 10_000 + b"O", b"err"))
    assert (len(found), found[-4:], set(found[:-4])) == (4096, "Oerr", {"o"})
    both = script.tail(logs(tmp_path, b"o" * 10_000, b"e" * 10_000))
    assert (both.count("o"), both.count("e")) == (2048, 2048)


def test_what_is_no_text_does_not_hurt(tmp_path: Path) -> None:
    assert script.tail(logs(tmp_path, b"\xff\xfe", b"")) == "\ufffd\ufffd"
