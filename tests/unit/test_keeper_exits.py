"""Exits that agents have been told of, and that are written down once nobody waits."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from boreas_agent.keeper.loop import Child, Keeper

DATA: dict[str, Any] = {"status": 9, "error": "", "wall": 1.0, "boottime": 1.0, "oom": False}


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[Keeper]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "sock"))
        listener.listen()
        one = Keeper(listener, str(tmp_path / "own.log"), "")
        one.leaving = True  # it forks nobody
        yield one
        one.selector.close()
        one.channels.close()
        os.close(one.quiet.fd)


@pytest.mark.parametrize(("pid", "written"), [(4711, True), (4712, False), (None, False)])
def test_a_told_exit_is_written_beside_the_claim_of_the_same_process_alone(
    keeper: Keeper, tmp_path: Path, pid: int | None, written: bool
) -> None:
    """Whoever was told may have deleted the folder since, and made another one, with a run of the same number in it."""
    if pid is not None:
        (tmp_path / "1.claim").write_text(json.dumps({"pid": pid, "keeper": keeper.identity}))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        dead = Child(4711, ours, None)
        dead.request = {"folder": str(tmp_path), "run": 1}
        keeper.told.append((dead, DATA))
        assert not keeper.finished()
        keeper.chore()
    assert (tmp_path / "1.exit").exists() is written
    assert not keeper.told


def test_an_exit_whose_claim_cannot_be_read_now_is_tried_again(keeper: Keeper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(_dead: Child) -> None:
        raise OSError(24, "Too many open files")

    (tmp_path / "1.claim").write_text(json.dumps({"pid": 4711, "keeper": keeper.identity}))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        dead = Child(4711, ours, None)
        dead.request = {"folder": str(tmp_path), "run": 1}
        keeper.told.append((dead, DATA))
        with monkeypatch.context() as full:
            full.setattr(keeper, "recorded", refuses)
            keeper.chore()
        assert not (tmp_path / "1.exit").exists()
        assert not keeper.finished()
        keeper.tick()
    assert (tmp_path / "1.exit").exists()
