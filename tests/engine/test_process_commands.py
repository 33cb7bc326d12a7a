"""Commands beside processes: whose they are, how they end, and that nothing of them stays."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from boreas_agent.drivers import procfs
from boreas_agent.drivers.process import ProcessDriver
from boreas_agent.errors import Unavailable
from boreas_agent.model import Executed, Instance
from tests.engine.node import processes_with
from tests.engine.processes import Ground, ground, only, sleeper, want
from tests.waiting import eventually, eventually_async


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Ground]:
    with ground(tmp_path) as made:
        yield made


def beside(place: Ground, command: Sequence[str], seconds: float = 20.0, instance: Instance | None = None) -> Executed:
    async def work(driver: ProcessDriver) -> Executed:
        await driver.start(instance or sleeper(), 0)
        return await driver.execute(await only(driver), command, seconds)

    return place.run(work)


def shell(line: str) -> list[str]:
    return ["/bin/sh", "-c", line]


def test_it_sees_what_the_instance_sees(place: Ground) -> None:
    instance = sleeper(environment={"discovery.type": "single", "SECRET": "s 3"}, working_dir="/var")
    said = beside(place, ["/usr/bin/env"], instance=instance).output
    assert {"discovery.type=single", "SECRET=s 3", "BOREAS_APP=web", "BOREAS_REPLICA=0"} <= set(said.splitlines())
    assert "BOREAS_INSTANCE" not in said
    assert beside(place, shell("pwd"), instance=instance).output == "/var\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
def test_it_is_the_same_user(place: Ground) -> None:
    place.work_dir.chmod(0o755)
    assert beside(place, shell("id -u; id -g"), instance=sleeper(user="nobody", working_dir="/")).output.split()[0] == "65534"


def test_words_are_words_and_no_shell_looks_at_them(place: Ground) -> None:
    assert beside(place, ["/bin/echo", "$HOME; exit 3", "*"]) == Executed(0, "$HOME; exit 3 *\n")


def test_it_has_no_input_and_the_signals_of_any_program(place: Ground) -> None:
    assert beside(place, shell("read x; echo $?")).output == "1\n"
    ignored = beside(place, shell("grep SigIgn /proc/self/status")).output.split()[1]
    assert int(ignored, 16) == 0


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        (["/nowhere/to/be/found"], "cannot execute /nowhere/to/be/found: No such file or directory"),
        (["no-such-program-in-path"], "cannot execute no-such-program-in-path: No such file or directory"),
        (["/etc/passwd"], "cannot execute /etc/passwd: Permission denied"),
        (["/bin/sh", "-c", "kill -9 $$"], "the command was killed by SIGKILL"),
    ],
)
def test_what_cannot_be_executed_or_is_killed_is_told(place: Ground, command: list[str], problem: str) -> None:
    executed = beside(place, command)
    assert (executed.code, executed.problem) == (None, problem)


def test_of_much_output_the_end_is_kept(place: Ground) -> None:
    executed = beside(place, shell("seq 1 200000; echo end >&2"))
    assert executed.code == 0
    assert executed.output.endswith("200000\nend\n")
    assert len(executed.output) <= 4096


def test_one_that_hangs_is_killed_in_time_with_all_that_it_started(place: Ground) -> None:
    mark = f"hang-{place.identity}"
    line = f"echo before; sh -c 'sleep 1000; : {mark}' & setsid sh -c 'sleep 1000; : {mark}' & (sh -c 'sleep 1000; : {mark}' &); wait"
    executed = beside(place, shell(line), seconds=0.5)
    assert executed == Executed(None, "before\n", "the command did not end within 0.5 s")
    eventually(lambda: not processes_with(mark))


def test_what_it_leaves_behind_ends_with_it(place: Ground) -> None:
    mark = f"left-{place.identity}"
    assert beside(place, shell(f"setsid sh -c 'sleep 1000; : {mark}' > /dev/null 2>&1 & sleep 0.2")).code == 0
    eventually(lambda: not processes_with(mark))


def test_none_outlives_its_agent_and_instances_do(place: Ground) -> None:
    mark = f"orphan-{place.identity}"

    async def work(driver: ProcessDriver) -> int:
        await driver.start(sleeper(), 0)
        seen = await only(driver)
        hanging = asyncio.create_task(driver.execute(seen, shell(f"sleep 1000; : {mark}"), 1000))
        await eventually_async(lambda: _in_thread(processes_with, mark))
        hanging.cancel()
        return int(seen.ref)

    pid = place.run(work)
    eventually(lambda: not processes_with(mark))
    assert procfs.stat(pid) is not None


async def _in_thread(work: object, *args: object) -> object:
    return await asyncio.to_thread(work, *args)  # type: ignore[arg-type]


def test_a_runner_that_is_killed_makes_nothing_known_and_is_replaced(place: Ground) -> None:
    mark = f"killed-{place.identity}"

    def runner() -> int:
        (pid,) = [one.pid for one in procfs.processes() if one.parent == os.getpid() and b"/runner/" in _command(one.pid)]
        return pid

    async def work(driver: ProcessDriver) -> None:
        await driver.start(sleeper(), 0)
        seen = await only(driver)
        hanging = asyncio.create_task(driver.execute(seen, shell(f"sleep 1000; : {mark}"), 1000))
        await eventually_async(lambda: _in_thread(processes_with, mark))
        os.kill(await asyncio.to_thread(runner), signal.SIGKILL)
        with pytest.raises(Unavailable):
            await hanging
        await eventually_async(lambda: _gone(mark))

        async def works_again() -> bool:
            try:
                return (await driver.execute(seen, ["/bin/true"], 20)).code == 0
            except Unavailable:
                return False

        await eventually_async(works_again)

    place.run(work)


def test_a_runner_without_descriptors_says_so_and_goes_on(place: Ground) -> None:
    def runner() -> int:
        (pid,) = [one.pid for one in procfs.processes() if one.parent == os.getpid() and b"/runner/" in _command(one.pid)]
        return pid

    async def work(driver: ProcessDriver) -> None:
        await driver.start(sleeper(), 0)
        seen = await only(driver)
        assert (await driver.execute(seen, ["/bin/true"], 20)).code == 0
        pid = await asyncio.to_thread(runner)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (32, 32))
        answers = await asyncio.gather(*(driver.execute(seen, ["/bin/sleep", "0.5"], 20) for _ in range(40)))
        assert {answer.code for answer in answers} == {0, None}
        refused = [answer.problem for answer in answers if answer.code is None]
        assert all(why.startswith("cannot start the command: ") and "Too many open files" in why for why in refused)
        assert await asyncio.to_thread(runner) == pid
        assert (await driver.execute(seen, ["/bin/true"], 20)).code == 0

    place.run(work)


async def _gone(mark: str) -> bool:
    return not await asyncio.to_thread(processes_with, mark)


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_many_at_once_each_get_their_own_answer(place: Ground) -> None:
    async def work(driver: ProcessDriver) -> list[Executed]:
        await driver.start(want(command=["/bin/sleep", "1000000"]), 0)
        seen = await only(driver)
        return list(await asyncio.gather(*(driver.execute(seen, shell(f"echo {n}; exit {n}"), 20) for n in range(50))))

    assert place.run(work) == [Executed(n, f"{n}\n") for n in range(50)]
