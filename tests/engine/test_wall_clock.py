"""Somebody sets the wall clock under a real agent: nothing starts twice, too early, or never."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import cycle, pairwise
from pathlib import Path

import pytest

from tests.engine.engine import Engine
from tests.engine.node import Node, running_node
from tests.engine.test_scenarios_docker import container
from tests.waiting import eventually

SHIFTS = (-40, 600, -86400, 0)
LATE_SECONDS = 2.0
QUICK = {"rollout": {"min_healthy_seconds": 0.3}, "stop": {"grace_seconds": 0.2}}


@pytest.fixture
def shift_file(tmp_path: Path) -> Path:
    file = tmp_path / "shift"
    file.write_text("0")
    return file


def setter(file: Path) -> Callable[[], None]:
    """Sets the wall clock to the next of ``SHIFTS``."""
    shifts = cycle(SHIFTS)

    def shift() -> None:
        draft = file.with_suffix(".new")
        draft.write_text(str(next(shifts)))
        draft.rename(file)

    return shift


@pytest.fixture
def node(tmp_path: Path, shift_file: Path) -> Iterator[Node]:
    with running_node(tmp_path / "node", module="tests.engine.shifted_agent", SHIFT_FILE=str(shift_file)) as started:
        yield started


def test_scenario_7_a_jump_of_the_wall_clock_shortens_and_prolongs_no_backoff(node: Node, shift_file: Path, tmp_path: Path) -> None:
    told, shift = tmp_path / "starts", setter(shift_file)
    restart = {"initial_delay_seconds": 0.5, "factor": 2, "max_delay_seconds": 2}
    node.apply("loop", type="binary", command=["/bin/sh", "-c", f"cat /proc/uptime >> {told}; exit 1"], restart=restart, **QUICK)
    for count in range(1, 7):
        starts = eventually(lambda count=count: len(lines := _lines(told)) >= count and lines)
        shift()
        if count == 4:
            node.restart()
    waited = [after - before for before, after in pairwise(starts)]
    for seconds, delay in zip(waited, (0.5, 1, 2, 2, 2), strict=True):
        assert 0.9 * delay <= seconds + 0.02 <= 1.1 * delay + LATE_SECONDS, waited


def _lines(file: Path) -> list[float]:
    """The seconds since boot at which it was started."""
    return [float(line.split()[0]) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.mark.parametrize("seconds", [shift for shift in SHIFTS if shift])
def test_scenario_7_a_jump_of_the_wall_clock_moves_no_deadline_of_a_rollout(node: Node, shift_file: Path, seconds: int) -> None:
    program = {"type": "binary", "command": ["/bin/sleep", "3600"], **QUICK}
    node.apply("web", "v1", **program)
    node.apply("other", "v1", **program)
    node.reaches("web", "running")
    node.reaches("other", "running")
    other = node.claim("other")
    never = {"readiness": {"exec": {"command": ["/bin/false"]}, "interval_seconds": 0.2}}
    node.apply("web", "v2", **program | {"health": never, "rollout": {"min_healthy_seconds": 0.3, "progress_deadline_seconds": 3}})
    began = time.monotonic()
    eventually(lambda: "not ready" in node.status("web")["healthy"]["msg"])
    shift_file.write_text(str(seconds))
    eventually(lambda: node.status("web")["running_version"] == "v1", 20)
    assert 3 <= time.monotonic() - began <= 3 + 2 * LATE_SECONDS
    assert node.reaches("web", "degraded")["healthy"]["level"] == 70
    assert (node.claim("other"), node.status("other")["healthy"]["level"]) == (other, 100)
    assert sum(line.startswith("Started: started web.2.0") for line in node.events("web")) == 1


@pytest.mark.docker
def test_scenario_7_a_jump_of_the_wall_clock_restarts_no_container(clean_engine: Engine, tmp_path: Path, shift_file: Path) -> None:
    box = {"type": "docker", "image": clean_engine.image, "command": ["/bin/sleep", "3600"], **QUICK}
    shift, module = setter(shift_file), "tests.engine.shifted_agent"
    with running_node(tmp_path / "node", clean_engine.socket, module=module, SHIFT_FILE=str(shift_file)) as node:
        node.apply("web", "v1", **box)
        node.reaches("web", "running")
        first = container(clean_engine, "web")
        for version in ("v2", "v3", "v4"):
            shift()
            node.restart()
            assert container(clean_engine, "web") == first
            assert node.status("web")["healthy"]["level"] == 100
            node.apply("next", version, **box)
            shift()
            eventually(lambda version=version: _in_place(node, version), 20)
        assert node.status("web")["restarts"] == node.status("next")["restarts"] == 0
        assert node.exits("web") == []


def _in_place(node: Node, version: str) -> bool:
    shown = node.status("next")
    return (shown["version"], shown["healthy"]["level"], shown["deployment"]["outcome"]) == (version, 100, "succeeded")
