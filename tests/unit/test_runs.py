"""Reading back what keepers wrote, and what they had no time to write."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from boreas_agent.drivers.runs import Run, exit_of, forget_old, name_of, parse_claim, read_exit, read_runs, write_exit

CLAIM = {
    "pid": 7,
    "start": 70,
    "boot": "b",
    "keeper": [5, 50],
    "cgroup": None,
    "stdout": 1,
    "stderr": 2,
    "wall": 1000.0,
    "boottime": 10.0,
}


def ended(**data: object) -> Run:
    return Run(3, parse_claim(3, CLAIM), {"status": 0, "wall": 1004.0, "boottime": 14.5, **data})


@pytest.mark.parametrize(
    ("status", "code", "signal_name"),
    [(0, 0, None), (1 << 8, 1, None), (137 << 8, 137, None), (9, None, "SIGKILL"), (15, None, "SIGTERM"), (128 | 11, None, "SIGSEGV")],
)
def test_a_raw_status_says_how_it_ended(status: int, code: int | None, signal_name: str | None) -> None:
    found = exit_of(ended(status=status))
    assert (found.run, found.code, found.signal, found.seconds, found.lost, found.reason) == (
        "3@1000.000",
        code,
        signal_name,
        4.5,
        False,
        "",
    )


def test_what_could_not_be_executed_has_a_reason_and_no_code() -> None:
    found = exit_of(ended(status=127 << 8, error="cannot execute x: No such file or directory"))
    assert (found.code, found.signal, found.lost) == (None, None, False)
    assert str(found) == "cannot execute x: No such file or directory"


def test_an_end_that_nobody_saw_is_lost() -> None:
    found = exit_of(ended(status=None, error="exit status unknown", boottime=None))
    assert (found.code, found.signal, found.lost, found.seconds) == (None, None, True, None)


def test_a_claim_that_cannot_be_read_still_counts_as_a_run(tmp_path: Path) -> None:
    (tmp_path / "1.claim").write_text(json.dumps(CLAIM))
    (tmp_path / "2.claim").write_text("")
    (tmp_path / "10.claim").write_text("{}")
    (tmp_path / "x.claim").write_text("{}")
    (tmp_path / "1.exit").write_text('{"status": 0, "wal')
    runs = read_runs(tmp_path)
    assert [(run.number, run.claim is not None, run.ended) for run in runs] == [(1, True, None), (2, False, None), (10, False, None)]


def test_what_the_keeper_wrote_is_not_overwritten(tmp_path: Path) -> None:
    known = {"status": 9, "wall": 1.0, "boottime": 2.0}
    write_exit(tmp_path, 1, known)
    write_exit(tmp_path, 1, {"status": None, "wall": 5.0, "boottime": None})
    assert read_exit(tmp_path, 1) == known
    assert [path.name for path in tmp_path.iterdir()] == ["1.exit"]


def test_the_last_two_runs_stay_on_record(tmp_path: Path) -> None:
    for number in range(1, 12):
        (tmp_path / f"{number}.claim").touch()
        (tmp_path / f"{number}.exit").touch()
    forget_old(tmp_path, 11)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["10.claim", "10.exit", "11.claim", "11.exit"]


def test_signals_without_a_name_get_one() -> None:
    assert name_of(signal.SIGKILL) == "SIGKILL"
    assert name_of(signal.SIGRTMIN + 3) == "SIGRTMIN+3"
