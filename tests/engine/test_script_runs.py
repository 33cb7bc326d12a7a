"""Scripts as real processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from boreas_agent.drivers.process import ProcessDriver
from boreas_agent.model import Exit, Phase
from tests.engine.processes import Ground, ended, ground, only, want


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Ground]:
    with ground(tmp_path) as made:
        yield made


def run(place: Ground, **pkg: Any) -> Exit:
    async def work(driver: ProcessDriver) -> Exit:
        await driver.start(want("job", type="script", **pkg), 0)
        return await ended(driver, "job")

    return place.run(work)


def test_lines_stop_at_the_first_error_and_their_output_is_kept(place: Ground) -> None:
    done = run(place, command=["echo one", "echo two >&2; false", "echo three"], args=["a"])
    assert (done.code, done.output_tail) == (1, "one\ntwo\n")


def test_positional_parameters_reach_the_script(place: Ground) -> None:
    done = run(place, command=['printf "%s|" "$@"'], args=["a b", "", "$c"])
    assert (done.code, done.output_tail) == (0, "a b||$c|")


def test_a_text_without_an_interpreter_goes_on_after_an_error(place: Ground) -> None:
    done = run(place, script="false\necho on\nexit 4")
    assert (done.code, done.output_tail) == (4, "on\n")


def test_a_text_runs_under_its_interpreter(place: Ground) -> None:
    done = run(place, script="#!/usr/bin/env python3\nimport sys\nprint(sys.argv[1:], 'ü')\n", args=["x"])
    assert (done.code, done.output_tail) == (0, "['x'] ü\n")


def test_an_interpreter_that_is_missing_is_named_as_the_reason(place: Ground) -> None:
    done = run(place, script="#!/no/such/interpreter\n")
    assert not done.known
    assert done.reason.endswith("the interpreter it names does not exist")


@pytest.mark.skipif(os.getuid() != 0, reason="only root may become somebody else")
@pytest.mark.parametrize("source", [{"command": ["id -un", "pwd"]}, {"script": "id -un; pwd"}, {"script": "#!/bin/sh\nid -un; pwd"}])
def test_a_script_runs_as_its_user_though_the_work_dir_is_closed_to_it(place: Ground, source: dict[str, Any]) -> None:
    place.work_dir.chmod(0o700)
    done = run(place, user="nobody", **source)
    assert (done.code, done.output_tail.splitlines()) == (0, ["nobody", str(place.layout.release(want("job", command=["x"]).name))])


def test_the_output_of_an_earlier_run_is_not_mixed_in(place: Ground) -> None:
    async def work(driver: ProcessDriver) -> None:
        job = want("job", type="script", command=["echo run; exit 1"])
        for number in range(3):
            await driver.start(job, number)
            assert (await ended(driver, "job")).output_tail == "run\n"

    place.run(work)
    assert place.run(lambda driver: ended(driver, "job")).output_tail == "run\n"


def test_the_text_of_a_script_is_in_no_command_line(place: Ground) -> None:
    done = run(place, command=["# s3cret", "tr '\\0' ' ' < /proc/$$/cmdline"])
    assert done.ok
    assert "s3cret" not in done.output_tail


# --- checks ----------------------------------------------------------------------------------------


def test_a_check_starts_nothing_and_the_run_after_it_is_the_first(place: Ground) -> None:
    job = want("job", type="script", command=["echo ran"], check="echo $BOREAS_APP; exit 5")

    async def work(driver: ProcessDriver) -> None:
        for _ in range(2):
            answer = await driver.check(job, 10)
            assert (answer.code, answer.output, answer.problem) == (5, "job\n", "")
        seen = await only(driver, "job")
        assert (seen.phase, seen.run, seen.exits, seen.hash) == (Phase.CREATED, 0, (), job.hash)
        await driver.start(job, 0)
        assert (await ended(driver, "job")).output_tail == "ran\n"
        assert (await driver.check(job, 10)).code == 5
        await driver.remove(await only(driver, "job"))
        assert await driver.observe("job") == []

    place.run(work)
    assert not place.layout.folder(job.name).exists()


def test_an_agent_that_starts_anew_finds_what_was_only_checked(place: Ground) -> None:
    job = want("job", type="script", command=["true"], check="true")
    place.run(lambda driver: driver.check(job, 10))
    seen = place.run(lambda driver: only(driver, "job"))
    assert (seen.phase, seen.record) == (Phase.CREATED, job.record)


def test_the_text_of_a_check_is_in_no_command_line(place: Ground) -> None:
    job = want("job", type="script", command=["true"], check="# s3cret\ntr '\\0' ' ' < /proc/$$/cmdline")
    answer = place.run(lambda driver: driver.check(job, 10))
    assert answer.code == 0
    assert "s3cret" not in answer.output
