"""Ending a whole process tree, with every kind of cgroup that this machine has and without any."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from boreas_agent.drivers import cgroup
from boreas_agent.drivers.process import ProcessDriver
from boreas_agent.model import Phase
from tests.engine.processes import Ground, alive, ended, ground, only, shell, sleeper
from tests.waiting import eventually

DAEMON = "(setsid sh -c 'echo $$ >> PIDS; trap \"\" TERM HUP; while :; do sleep 1000000 & echo $! >> PIDS; wait; done' &) ; "


def _no_cgroups() -> Path | None:
    return None


def _freezer() -> Path | None:
    root = Path("/sys/fs/cgroup/freezer")
    return root if root.exists() and cgroup.usable(root) else None


WAYS: dict[str, Callable[[], Path | None]] = {"best": cgroup.find_root, "v1 freezer": _freezer, "none": _no_cgroups}


@pytest.fixture(params=WAYS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ground]:
    find = WAYS[request.param]
    if request.param != "none" and find() is None:
        pytest.skip(f"this machine has no such cgroups: {request.param}")
    with ground(tmp_path, find) as made:
        yield made


def pids_in(path: Path, count: int) -> list[int]:
    """The pids that the processes wrote down, once there are so many."""
    return eventually(
        lambda: [int(pid) for pid in path.read_text().split()] if path.exists() and len(path.read_text().split()) >= count else []
    )


def test_a_stopped_process_tells_how_it_ended(place: Ground) -> None:
    async def work(driver: ProcessDriver) -> None:
        await driver.start(sleeper("a"), 0)
        await driver.start(shell("trap 'exit 3' INT; echo up; while :; do sleep 0.01; done", "b"), 0)
        eventually(lambda: place.log(sleeper("b")))
        first = await driver.stop(await only(driver, "a"), "SIGTERM", 10)
        second = await driver.stop(await only(driver, "b"), "SIGINT", 10)
        assert first and (first.signal, first.code) == ("SIGTERM", None)
        assert second and (second.signal, second.code) == (None, 3)
        assert await driver.stop(await only(driver, "a"), "SIGTERM", 10) is None

    place.run(work)


def test_a_process_that_ignores_the_signal_is_killed_after_its_grace(place: Ground) -> None:
    async def work(driver: ProcessDriver) -> None:
        await driver.start(shell("trap '' TERM; echo up; while :; do sleep 0.01; done"), 0)
        eventually(lambda: place.log(sleeper()))
        before = place.clock.boottime()
        done = await driver.stop(await only(driver), "SIGTERM", 0.3)
        assert done and done.signal == "SIGKILL"
        assert 0.3 <= place.clock.boottime() - before < 10

    place.run(work)


def test_a_paused_process_can_be_stopped(place: Ground) -> None:
    async def work(driver: ProcessDriver) -> None:
        await driver.start(sleeper(), 0)
        seen = await only(driver)
        os.kill(int(seen.ref), 19)
        done = await driver.stop(seen, "SIGTERM", 10)
        assert done and done.signal == "SIGTERM"

    place.run(work)


def test_daemons_that_left_the_session_are_stopped_too(place: Ground, tmp_path: Path) -> None:
    written = tmp_path / "pids"

    async def work(driver: ProcessDriver) -> None:
        await driver.start(shell(DAEMON.replace("PIDS", str(written)) + "exec sleep 1000000"), 0)
        daemons = pids_in(written, 2)
        await driver.stop(await only(driver), "SIGTERM", 0.2)
        assert not [pid for pid in daemons if alive(pid)]

    place.run(work)


def test_what_a_dead_run_left_is_ended_before_the_next_one_begins(place: Ground, tmp_path: Path) -> None:
    written, asked = tmp_path / "pids", None

    async def work(driver: ProcessDriver) -> None:
        nonlocal asked
        before = f"n=$(cat {written} 2> /dev/null | wc -l); "
        both = f"until [ $(wc -l < {written}) -ge $((n + 2)) ]; do sleep 0.01; done; exit 1"
        asked = shell(before + DAEMON.replace("PIDS", str(written)) + both)
        await driver.start(asked, 0)
        daemons = pids_in(written, 2)
        assert (await ended(driver)).code == 1
        assert all(alive(pid) for pid in daemons[:2])
        await driver.start(asked, 1)
        assert not [pid for pid in daemons[:2] if alive(pid)]
        await ended(driver)
        await driver.remove(await only(driver))
        assert not [pid for pid in pids_in(written, 4) if alive(pid)]

    place.run(work)


def test_the_next_agent_stops_what_the_last_one_started(place: Ground, tmp_path: Path) -> None:
    written = tmp_path / "pids"
    place.run(lambda driver: driver.start(shell(DAEMON.replace("PIDS", str(written)) + "exec sleep 1000000"), 0))
    daemons = pids_in(written, 2)
    for keeper in place.keepers():
        os.kill(keeper, 9)

    async def work(driver: ProcessDriver) -> None:
        seen = await only(driver)
        assert seen.phase is Phase.RUNNING
        done = await driver.stop(seen, "SIGTERM", 0.2)
        assert done and (done.code, done.signal, done.reason) == (None, None, "exit status unknown")
        assert not [pid for pid in (int(seen.ref), *daemons) if alive(pid)]

    place.run(work)


@contextmanager
def bystander(after: int) -> Iterator[subprocess.Popen[bytes]]:
    """A process of somebody else that begins after the clock tick ``after``: within one, no two processes get one pid."""
    eventually(lambda: int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK")) > after)
    with subprocess.Popen(["/bin/sleep", "1000000"], start_new_session=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_bystander_with_a_recorded_pid_is_never_signalled(place: Ground) -> None:
    place.run(lambda driver: driver.start(sleeper(), 0))
    folder = place.layout.folder(sleeper().name)
    claim = (folder / "1.claim").read_text()
    with bystander(int(json.loads(claim)["start"])) as other:
        pid = place.run(only).ref
        for keeper in place.keepers():
            os.kill(keeper, 9)
        os.kill(int(pid), 9)
        (folder / "1.claim").write_text(claim.replace(f'"pid": {pid}', f'"pid": {other.pid}'))
        (folder / "1.exit").unlink(missing_ok=True)

        async def work(driver: ProcessDriver) -> None:
            seen = await only(driver)
            assert (seen.phase, str(seen.last_exit)) == (Phase.EXITED, "exit status unknown")
            assert await driver.stop(seen, "SIGTERM", 1) is None
            await driver.start(sleeper(), 1)
            assert (await only(driver)).phase is Phase.RUNNING
            await driver.stop(await only(driver), "SIGTERM", 1)
            await driver.remove(await only(driver))

        place.run(work)
        assert other.poll() is None


def test_nothing_of_a_removed_instance_is_left_among_the_cgroups(place: Ground) -> None:
    async def work(driver: ProcessDriver) -> None:
        for run in range(3):
            await driver.start(sleeper(), run)
            await driver.stop(await only(driver), "SIGTERM", 5)
        await driver.remove(await only(driver))

    place.run(work)
    root = place.find_cgroups()
    if root:
        folder = cgroup.path_of(root, place.identity, "keeper").parent
        eventually(lambda: len(list(folder.glob("*/cgroup.procs"))) == 2)  # the keeper's and the spare's
    for keeper in place.keepers():
        os.kill(keeper, 15)
    eventually(lambda: not place.keepers())
    assert root is None or eventually(lambda: not folder.exists())
