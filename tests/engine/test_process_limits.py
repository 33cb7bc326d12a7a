"""What a run may use, and how its first process is set up: with real cgroups."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from boreas_agent.drivers import cgroup, limits
from boreas_agent.drivers.process import ProcessDriver
from boreas_agent.errors import Terminal, Transient
from boreas_agent.model import Exit, Instance, Phase
from tests.engine.processes import Ground, alive, ended, ground, only, seen_in, shell, sleeper, want
from tests.waiting import eventually

HOG = "import time\nheld = []\nwhile True:\n    held.append(bytearray(b'x' * 4194304))\n    time.sleep(0.001)"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Ground]:
    with ground(tmp_path) as made:
        yield made
    assert not groups(made.identity)
    for root in roots():
        cgroup.remove(cgroup.path_of(root, made.identity, "x").parent)


def groups(identity: str) -> list[Path]:
    """The groups of limited runs."""
    return [path for root in roots() for path in cgroup.path_of(root, identity, "x").parent.glob("run-*")]


def roots() -> set[Path]:
    return {place.root for place in limits.find().values()}


def needs(*controllers: str) -> None:
    if missing := set(controllers) - limits.find().keys():
        pytest.skip(f"no cgroup controller here: {', '.join(sorted(missing))}")


def output_of(place: Ground, asked: Instance) -> str:
    """What the instance wrote until it ended well."""

    async def work(driver: ProcessDriver) -> str:
        await driver.start(asked, 0)
        done = await ended(driver, asked.name.app)
        assert done.ok, f"{done}: {place.log(asked, 'stderr')}"
        return place.log(asked)

    return place.run(work)


def end_of(place: Ground, asked: Instance) -> Exit:
    async def work(driver: ProcessDriver) -> Exit:
        await driver.start(asked, 0)
        return await ended(driver, asked.name.app)

    return place.run(work)


def test_a_memory_hog_is_killed_alone_and_that_is_told_from_any_other_kill(place: Ground) -> None:
    needs("memory")
    hog = want("hog", command=["/usr/bin/env", "python3", "-c", HOG], resources={"memory_limit": "64Mi"})

    async def work(driver: ProcessDriver) -> tuple[Exit, Phase]:
        await driver.start(sleeper("quiet"), 0)
        await driver.start(hog, 0)
        return await ended(driver, "hog"), (await only(driver, "quiet")).phase

    killed, other = place.run(work)
    assert (killed.signal, killed.oom_killed, str(killed)) == ("SIGKILL", True, "killed by SIGKILL (out of memory)")
    assert other is Phase.RUNNING


def test_a_kill_by_hand_is_no_lack_of_memory(place: Ground) -> None:
    needs("memory")
    killed = end_of(place, shell("kill -9 $$", resources={"memory_limit": "64Mi"}))
    assert (killed.signal, killed.oom_killed) == ("SIGKILL", False)


def test_a_fork_bomb_stays_contained_and_is_stopped_as_a_whole(place: Ground) -> None:
    needs("pids")
    bomb = shell("b() { b | b & }; b; while :; do sleep 1; done", "bomb", resources={"pids_limit": 20}, stop={"grace_seconds": 0})

    async def work(driver: ProcessDriver) -> None:
        await driver.start(bomb, 0)
        seen = await seen_in(driver, Phase.RUNNING, "bomb")
        group = next(path for root in roots() for path in cgroup.path_of(root, place.identity, "x").parent.glob("run-bomb.1.0.*"))
        eventually(lambda: (group / "pids.current").read_text().strip() not in {"", "1"})
        assert int((group / "pids.current").read_text()) <= 20
        await driver.stop(seen, "SIGTERM", 0)
        await driver.remove(await only(driver, "bomb"))
        assert not group.exists()

    place.run(work)


def test_processors_are_limited(place: Ground) -> None:
    needs("cpu", "cpuset")
    shown = output_of(
        place, shell("grep Cpus_allowed_list /proc/self/status; cat /proc/self/cgroup", resources={"cpu_limit": 0.5, "cpu_set": "0"})
    )
    assert "Cpus_allowed_list:\t0\n" in shown
    assert "run-web.1.0.1" in shown


def test_a_limited_run_that_ended_is_started_again_with_its_limits(place: Ground) -> None:
    needs("memory")
    asked = shell("cat /proc/self/cgroup; sleep 1000000", resources={"memory_limit": "64Mi"})

    async def work(driver: ProcessDriver) -> None:
        await driver.start(asked, 0)
        seen = await seen_in(driver, Phase.RUNNING)
        os.kill(int(seen.ref), 9)
        await ended(driver)
        await driver.start(asked, 1)
        seen = await seen_in(driver, Phase.RUNNING)
        eventually(lambda: "run-web.1.0.2" in place.log(asked))
        await driver.stop(seen, "SIGTERM", 5)
        assert not alive(int(seen.ref))
        await driver.remove(await only(driver))

    place.run(work)


def test_a_limit_that_the_machine_cannot_set_refuses_the_start_by_name(place: Ground) -> None:
    async def work() -> None:
        driver = ProcessDriver(place.work_dir, place.identity, place.clock, find_controllers=dict)
        await driver.open()
        try:
            with pytest.raises(Terminal, match=r"memory_limit needs the cgroup controller 'memory'.*agent.process.require_cgroups"):
                await driver.start(sleeper(resources={"memory_limit": "64Mi"}), 0)
        finally:
            await driver.close()

    place.run(lambda _: work())


def test_where_limits_are_not_required_it_runs_without(place: Ground) -> None:
    async def work() -> None:
        driver = ProcessDriver(place.work_dir, place.identity, place.clock, find_controllers=dict, require_cgroups=False)
        await driver.open()
        try:
            await driver.start(sleeper(resources={"memory_limit": "64Mi"}), 0)
            await driver.stop(await seen_in(driver, Phase.RUNNING), "SIGTERM", 5)
        finally:
            await driver.close()

    place.run(lambda _: work())


def test_a_processor_that_does_not_exist_fails_the_start_with_the_reason(place: Ground) -> None:
    needs("cpuset")

    async def work(driver: ProcessDriver) -> None:
        with pytest.raises(Transient, match=r"cpuset\.cpus.*writing 4000"):
            await driver.start(sleeper(resources={"cpu_set": "4000"}), 0)
        eventually(lambda: not groups(place.identity))

    place.run(work)


def test_the_mask_the_resource_limits_and_the_privileges_are_those_asked_for(place: Ground) -> None:
    asked = shell(
        "umask; ulimit -Sn; ulimit -Hn; ulimit -c; grep NoNewPrivs /proc/self/status",
        umask="0077",
        ulimits={"nofile": {"soft": 100, "hard": 200}, "core": 0},
        no_new_privs=True,
    )
    assert output_of(place, asked).split() == ["0077", "100", "200", "0", "NoNewPrivs:", "1"]


def test_the_environment_is_read_from_files_at_each_start_and_is_nowhere_in_the_folder(place: Ground, tmp_path: Path) -> None:
    file = tmp_path / "secrets.env"
    file.write_text("# a comment\nTOKEN='first one'\nexport MORE=a=b\nHERE=file\n")
    asked = shell('echo "$TOKEN/$MORE/$HERE"', environment_from=[str(file)], environment={"HERE": "spec"})

    async def work(driver: ProcessDriver) -> None:
        await driver.start(asked, 0)
        await ended(driver)
        file.write_text("TOKEN=second\n")
        await driver.start(asked, 1)
        await ended(driver)

    place.run(work)
    assert place.log(asked) == "first one/a=b/spec\nsecond//spec\n"
    kept = [path for path in place.layout.folder(asked.name).rglob("*") if path.is_file() and b"second" in path.read_bytes()]
    assert kept == []


@pytest.mark.parametrize(
    ("text", "why"),
    [(None, "does not exist"), ("no assignment\n", "line 1 of .* is not NAME=value"), ("A=1\nB\n", "line 2 of .* is not NAME=value")],
)
def test_a_file_that_cannot_be_understood_fails_the_start_without_showing_it(
    place: Ground, tmp_path: Path, text: str | None, why: str
) -> None:
    file = tmp_path / "secrets.env"
    if text is not None:
        file.write_text(text)

    async def work(driver: ProcessDriver) -> None:
        with pytest.raises(Terminal, match=why):
            await driver.start(sleeper(environment_from=[str(file)]), 0)

    place.run(work)


def test_a_pipe_that_nobody_writes_to_holds_up_nothing(place: Ground, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "secrets.env")

    async def work(driver: ProcessDriver) -> None:
        async with asyncio.timeout(20):
            with pytest.raises(Terminal, match="is not a file"):
                await driver.start(sleeper(environment_from=[str(tmp_path / "secrets.env")]), 0)

    place.run(work)


def test_a_limit_that_the_kernel_refuses_is_named(place: Ground) -> None:
    async def work(driver: ProcessDriver) -> str:
        await driver.start(sleeper(ulimits={"nofile": 2**31}), 0)
        return (await ended(driver)).reason

    assert place.run(work).startswith("cannot set the resource limit 7 to 2147483648:2147483648: ")


def test_an_optional_file_may_be_missing(place: Ground, tmp_path: Path) -> None:
    assert output_of(place, shell("echo ok", environment_from=[{"path": str(tmp_path / "none"), "optional": True}])) == "ok\n"
