"""Agents, keepers and machines that go away at any moment: never two copies, never a lost app."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import signal
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from blockbuster import blockbuster_ctx

from boreas_agent.drivers import keeper_client, procfs
from boreas_agent.drivers.process import ProcessDriver
from boreas_agent.errors import Transient
from boreas_agent.model import Instance, Observed, Phase
from tests.engine.processes import Ground, alive, blank_is_ready, ended, ground, number_of, only, seen_in, shell, sleeper, want
from tests.waiting import eventually, eventually_async


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Ground]:
    with ground(tmp_path) as made:
        yield made


def copies(place: Ground) -> list[int]:
    """Every living process of an app, found by its environment."""
    mark = f"BOREAS_TEST={place.identity}"
    return [one.pid for one in procfs.processes() if procfs.has_environment(one.pid, mark)]


def marked(place: Ground, app: str = "web") -> Instance:
    return sleeper(app, environment={"BOREAS_TEST": place.identity})


def test_the_next_agent_adopts_what_runs(place: Ground) -> None:
    place.run(lambda driver: driver.start(sleeper(), 0))
    first = place.run(only)
    for _ in range(10):
        assert place.run(only) == first
    assert len(place.keepers()) == 1


def test_an_exit_while_no_agent_runs_is_known_afterwards(place: Ground, tmp_path: Path) -> None:
    asked = shell(f"while [ -e {tmp_path}/stay ]; do sleep 0.01; done; exit 42")
    (tmp_path / "stay").touch()
    place.run(lambda driver: driver.start(asked, 0))
    (tmp_path / "stay").unlink()
    eventually((place.layout.folder(asked.name) / "1.exit").exists)
    assert place.run(ended).code == 42
    seen = place.run(only)
    assert [(number_of(one), one.code) for one in seen.exits] == [(1, 42)]


def test_apps_outlive_the_keeper_and_the_next_run_has_another_one(place: Ground) -> None:
    async def work(driver: ProcessDriver) -> None:
        await driver.start(sleeper("a"), 0)
        await driver.start(sleeper("b"), 0)
        before = [await only(driver, app) for app in "ab"]
        (old,) = place.keepers()
        os.kill(old, signal.SIGKILL)
        eventually(lambda: old not in place.keepers())
        assert [await only(driver, app) for app in "ab"] == before
        events = driver.events()
        os.kill(int(before[0].ref), signal.SIGKILL)
        assert await asyncio.wait_for(anext(events), 10) == "a"
        assert str((await only(driver, "a")).last_exit) == "exit status unknown"
        await driver.start(sleeper("a"), 1)
        os.kill(int((await only(driver, "a")).ref), signal.SIGKILL)
        assert (await ended(driver, "a")).signal == "SIGKILL"
        await events.aclose()  # type: ignore[attr-defined]

    place.run(work)


def test_a_new_keeper_is_ready_before_it_is_needed(place: Ground) -> None:
    async def work(driver: ProcessDriver) -> None:
        (old,) = place.keepers()
        os.kill(old, signal.SIGKILL)

        async def another() -> bool:
            return any(pid != old for pid in place.keepers())

        await eventually_async(another)

    place.run(work)


def test_a_keeper_asked_to_leave_takes_no_app_with_it(place: Ground) -> None:
    async def work(driver: ProcessDriver) -> None:
        await driver.start(sleeper(), 0)
        seen = await only(driver)
        (keeper,) = place.keepers()
        os.kill(keeper, signal.SIGTERM)
        os.kill(keeper, signal.SIGHUP)
        os.kill(keeper, signal.SIGINT)
        assert (await only(driver)).ref == seen.ref
        done = await driver.stop(seen, "SIGTERM", 5)
        assert done and done.signal == "SIGTERM"
        eventually(lambda: keeper not in place.keepers())

    place.run(work)


@pytest.mark.parametrize("order", list(itertools.permutations(("keeper", "app", "agent"))), ids="-".join)
def test_deaths_in_any_order_leave_one_copy(place: Ground, order: tuple[str, ...]) -> None:
    async def work() -> None:
        driver = place.make()
        await driver.open()
        await driver.start(marked(place), 0)
        for victim in order:
            if victim == "keeper":
                for keeper in place.keepers():
                    os.kill(keeper, signal.SIGKILL)
            elif victim == "app":
                os.kill(copies(place)[0], signal.SIGKILL)
            else:
                await driver.close()
                driver = place.make()
                await driver.open()
            await healed(driver, place)
        await driver.close()

    asyncio.run(work())


async def heal(driver: ProcessDriver, place: Ground) -> Observed:
    """What a reconciler would do: observe, start what does not run, as the run that follows."""
    while True:
        seen = await driver.observe("web")
        if seen and seen[0].phase is Phase.RUNNING and alive(int(seen[0].ref)):
            return seen[0]
        if not seen or seen[0].phase in {Phase.CREATED, Phase.EXITED}:
            await driver.start(marked(place), seen[0].run if seen else 0)


async def healed(driver: ProcessDriver, place: Ground) -> None:
    """One copy runs. A claimed run may still be on its way to its program, or have died on it with its keeper."""

    async def one_copy() -> bool:
        await heal(driver, place)
        found = len(copies(place))
        assert found <= 1
        return found == 1

    await eventually_async(one_copy)


def test_a_storm_of_deaths_never_makes_two_copies(place: Ground) -> None:
    """Kills and stops keepers, spares and apps while starts are under way, each at another moment."""
    chance = random.Random(7)

    def strike() -> None:
        match chance.randrange(4):
            case 0:
                victims = place.keepers()
            case 1:
                victims = place.spares()
            case 2:
                victims = copies(place)
            case _:
                victims = place.keepers() + copies(place)
        for pid in victims:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    async def work() -> None:
        async with place.open() as one, place.open() as other:
            for _ in range(40):
                healing = [asyncio.create_task(heal(driver, place)) for driver in (one, other)]
                await asyncio.wait(healing, timeout=chance.random() * 0.02)
                strike()
                assert len(copies(place)) <= 1
                for result in await asyncio.gather(*healing, return_exceptions=True):
                    assert isinstance(result, Observed | Transient), result
                assert len(copies(place)) <= 1
            await healed(one, place)
            assert (await heal(other, place)).ref == (await only(one)).ref

    asyncio.run(work())


def test_a_run_is_claimed_once_whoever_asks_however_often(place: Ground) -> None:
    async def work() -> None:
        async with place.open() as one, place.open() as other:
            for run in range(3):
                await asyncio.gather(*(driver.start(marked(place), run) for driver in (one, other) for _ in range(10)))
                assert len(copies(place)) == 1
                assert (await only(one)).ref == (await only(other)).ref == str(copies(place)[0])
                os.kill(copies(place)[0], signal.SIGKILL)
                for driver in (one, other):
                    assert (await seen_in(driver, Phase.EXITED)).run == run + 1

    asyncio.run(work())


def test_a_stale_request_does_not_become_a_second_copy(place: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stopped keeper is given up; when it goes on it drops what was asked, or finds the run claimed."""
    monkeypatch.setattr(keeper_client, "ANSWER_SECONDS", 0.3)

    async def work(driver: ProcessDriver) -> None:
        (stopped,) = place.keepers()
        eventually(place.spares)
        os.kill(stopped, signal.SIGSTOP)
        try:
            await driver.start(marked(place), 0)
            first = await only(driver)
            assert first.phase is Phase.RUNNING
        finally:
            os.kill(stopped, signal.SIGCONT)
        assert await only(driver) == first
        await driver.start(marked(place, "other"), 0)
        assert sorted(copies(place)) == sorted([int(first.ref), int((await only(driver, "other")).ref)])

    place.run(work)


def test_what_was_made_ahead_is_asked_for_once(place: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two children at work in one folder could each move in what the other has claimed, and the process that runs would be nobody's."""
    monkeypatch.setattr(keeper_client, "ANSWER_SECONDS", 0.3)

    async def work(driver: ProcessDriver) -> None:
        await eventually_async(partial(blank_is_ready, place))
        (made_ahead,) = [blank.stat().st_ino for blank in place.layout.apps.glob(".blank.*")]
        (stopped,) = eventually(lambda: [spare for spare in place.spares() if os.getsid(spare) == spare])  # its stand-in leads no session
        os.kill(stopped, signal.SIGSTOP)
        try:
            await driver.start(marked(place), 0)
            first = await only(driver)
            assert (place.layout.apps / "web").stat().st_ino != made_ahead
        finally:
            os.kill(stopped, signal.SIGCONT)
        await driver.start(marked(place, "other"), 0)
        eventually(lambda: stopped not in copies(place) + place.spares())
        assert await only(driver) == first
        assert sorted(copies(place)) == sorted([int(first.ref), int((await only(driver, "other")).ref)])

    place.run(work)


def test_a_stopped_keeper_does_not_hold_back_the_news_of_an_exit_for_ever(place: Ground) -> None:
    async def work(driver: ProcessDriver) -> None:
        await driver.start(sleeper(), 0)
        (keeper,) = place.keepers()
        os.kill(keeper, signal.SIGSTOP)
        try:
            os.kill(int((await only(driver)).ref), signal.SIGKILL)
            assert str((await ended(driver)).reason) == "exit status unknown"
        finally:
            os.kill(keeper, signal.SIGCONT)

    place.run(work)


def test_an_end_that_an_agent_was_told_of_is_on_disk_soon(place: Ground) -> None:
    async def work(driver: ProcessDriver) -> None:
        await driver.start(sleeper(), 0)
        seen = await only(driver)
        os.kill(int(seen.ref), signal.SIGKILL)
        await ended(driver)
        eventually((place.layout.folder(seen.name) / "1.exit").exists)

    place.run(work)


def test_what_a_keeper_told_and_did_not_write_down_the_agent_writes(place: Ground) -> None:
    async def work(driver: ProcessDriver) -> None:
        await driver.start(sleeper(), 0)
        seen = await only(driver)
        os.kill(int(seen.ref), signal.SIGKILL)
        await ended(driver)
        written = place.layout.folder(seen.name) / "1.exit"
        eventually(written.exists)
        written.unlink()
        (keeper,) = place.keepers()
        os.kill(keeper, signal.SIGKILL)
        await eventually_async(lambda: asyncio.to_thread(written.exists))

    place.run(work)
    (told,) = place.run(only).exits
    assert (told.signal, told.reason) == ("SIGKILL", "")


def test_a_claim_of_another_boot_names_nobody(place: Ground) -> None:
    place.run(lambda driver: driver.start(sleeper(), 0))
    seen = place.run(only)
    folder = place.layout.folder(seen.name)
    claim = json.loads((folder / "1.claim").read_text())
    (folder / "1.claim").write_text(json.dumps(claim | {"boot": "another"}))

    async def work(driver: ProcessDriver) -> None:
        now = await only(driver)
        assert now.last_exit
        assert (now.phase, now.last_exit.code, now.last_exit.signal) == (Phase.EXITED, None, None)
        assert now.last_exit.reason == "outcome unknown: the machine restarted"
        assert await driver.stop(now, "SIGTERM", 1) is None
        assert alive(int(seen.ref))

    place.run(work)
    assert place.run(only).exits[0].exited_at == place.run(only).exits[0].exited_at
    os.kill(int(seen.ref), signal.SIGKILL)


def test_a_request_from_long_ago_does_not_run_again_though_its_claim_is_deleted(place: Ground) -> None:
    async def work() -> None:
        async with place.open() as old, place.open() as new:
            await old.start(sleeper(), 0)
            for run in range(1, 4):
                await new.observe_all()
                await old.stop(await only(old), "SIGKILL", 0)
                await old.start(sleeper(), run)
            late = place.make()
            await late.open()
            late._watch.forget(sleeper().name)  # as if it had never looked again
            await late.start(sleeper(), 0)
            assert (await only(late)).run == 4
            await late.close()

    asyncio.run(work())


def test_an_idle_driver_and_a_busy_one_never_block_the_event_loop(place: Ground) -> None:
    async def work() -> None:
        async with place.open() as driver:
            events = driver.events()
            script = want("job", type="script", command=["echo out", "echo err >&2", "exit 3"])
            await driver.start(sleeper(), 0)
            await driver.start(script, 0)
            os.kill(int((await only(driver)).ref), signal.SIGKILL)
            await asyncio.wait_for(anext(events), 10)
            await ended(driver)
            await ended(driver, "job")
            await driver.start(sleeper(), 1)
            for _ in range(11):
                await driver.observe_all()
            await driver.stop(await only(driver), "SIGTERM", 5)
            for app in ("web", "job"):
                await driver.remove(await only(driver, app))
            await events.aclose()  # type: ignore[attr-defined]

    with blockbuster_ctx() as blockbuster:
        for name in ("os.stat", "os.read"):
            blockbuster.functions[name].can_block_in("tests/engine/processes.py", "only")
        asyncio.run(work())


def test_of_many_that_end_at_once_every_status_is_known(place: Ground) -> None:
    async def work(driver: ProcessDriver) -> None:
        quick = [want(f"quick-{number}", command=["/bin/true"]) for number in range(80)]
        await asyncio.gather(*(driver.start(one, 0) for one in quick))
        assert {str(await ended(driver, one.name.app)) for one in quick} == {"exited with code 0"}

    place.run(work)


def test_output_is_bounded_while_it_is_written(place: Ground) -> None:
    log = {"max_size": "5Mi", "max_files": 2}
    asked = want(command=["/usr/bin/head", "-c", "100000000", "/dev/zero"], log=log)
    lines = want("lines", command=["/bin/sh", "-c", "exec yes $(seq -s, 40) | head -c 60000000; echo last; sleep 1000000"], log=log)

    async def work(driver: ProcessDriver) -> None:
        await driver.start(asked, 0)
        await driver.start(lines, 0)
        path, other = place.layout.log(asked.name, "stdout"), place.layout.log(lines.name, "stdout")

        async def done() -> bool:
            return path.stat().st_size == 100_000_000 and other.stat().st_size == 60_000_005

        await eventually_async(done, 60)
        await eventually_async(lambda: _bounded(path))
        await eventually_async(lambda: _bounded(other))
        with other.open("rb") as file:
            start = os.lseek(file.fileno(), 0, os.SEEK_DATA)
            assert start > 40_000_000
            file.seek(start)
            kept = file.read().splitlines()
            assert kept[-1].endswith(b"last")
            assert set(kept[1:-1]) == {",".join(map(str, range(1, 41))).encode()}
        await driver.stop(await only(driver, "lines"), "SIGTERM", 5)

    place.run(work)


async def _bounded(path: Path) -> bool:
    return path.stat().st_blocks * 512 <= 10 * 1024 * 1024


def test_a_very_long_work_dir_is_no_obstacle(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120) / ("e" * 120)
    deep.mkdir(parents=True)
    with ground(deep) as place:

        async def work(driver: ProcessDriver) -> None:
            await driver.start(sleeper(), 0)
            assert (await only(driver)).phase is Phase.RUNNING
            await driver.stop(await only(driver), "SIGTERM", 5)

        place.run(work)


def test_nothing_of_the_agents_environment_reaches_the_keeper(place: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "s3cret")
    place.run(lambda driver: driver.start(sleeper(), 0))
    (keeper,) = place.keepers()
    pid = int(place.run(only).ref)
    for one in (keeper, pid):
        assert b"s3cret" not in Path(f"/proc/{one}/environ").read_bytes()


def test_a_socket_that_nobody_listens_on_is_cleared_away(place: Ground) -> None:
    place.layout.keeper.mkdir()
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(place.layout.keeper / "0123456789ab.1.sock"))
    stale.close()
    place.run(lambda driver: driver.start(sleeper(), 0))
    assert [path.name for path in place.layout.keeper.glob("0123456789ab.*")] == []
    assert (place.layout.keeper.stat().st_mode & 0o777) == 0o700


@pytest.mark.parametrize("whose", ["spare", "keeper"])
def test_nothing_of_a_spare_outlives_it(place: Ground, whose: str) -> None:
    """Not what shares its address space either, however the spare or the keeper ends."""

    async def work(_driver: ProcessDriver) -> None:
        (keeper,) = place.keepers()
        spare = eventually(lambda: [one for one in place.spares() if os.getsid(one) == one])
        ahead = place.spares()
        os.kill(keeper if whose == "keeper" else spare[0], signal.SIGKILL)
        eventually(lambda: not any(procfs.stat(pid) for pid in ahead))

    place.run(work)


def test_an_empty_line_asks_a_keeper_for_nothing(place: Ground) -> None:
    """Nobody is dropped for it, and the spare waits on."""

    async def work(driver: ProcessDriver) -> None:
        spare = eventually(lambda: [one for one in place.spares() if os.getsid(one) == one])
        (name,) = place.layout.keeper.glob("*.sock")
        with socket.socket(socket.AF_UNIX) as agent:
            agent.connect(str(name))
            agent.settimeout(10)
            agent.sendall(b"\n\n")
            await driver.start(sleeper(), 0)
            pid = int((await only(driver)).ref)
            assert pid in spare
            os.kill(pid, signal.SIGKILL)
            heard = b""
            while b'"exit"' not in heard:
                heard += (said := agent.recv(65536))
                assert said

    place.run(work)


def test_a_program_finds_no_process_beside_it_that_it_did_not_start(place: Ground) -> None:
    async def work(driver: ProcessDriver) -> None:
        await driver.start(sleeper(), 0)
        pid = int((await only(driver)).ref)
        assert [one.pid for one in procfs.processes() if one.parent == pid] == []
        assert [one.pid for one in procfs.processes() if one.session == pid] == [pid]

    place.run(work)


def test_a_keeper_with_nothing_to_keep_ends_after_its_agent(place: Ground) -> None:
    place.run(lambda driver: driver.observe_all())
    eventually(lambda: not place.keepers(), 30)
    assert list(place.layout.keeper.glob("*.sock")) == []


def test_a_hundred_apps_cost_the_keeper_little_memory(place: Ground) -> None:
    async def work(driver: ProcessDriver) -> None:
        await asyncio.gather(*(driver.start(sleeper(f"app{number}"), 0) for number in range(100)))
        assert len(await driver.observe_all()) == 100

    place.run(work)
    eventually(place.spares)
    total = sum(_pss_kib(pid) for pid in place.keepers() + place.spares())
    assert total <= 16 * 1024 + 100 * 100, f"{total} KiB"


def _pss_kib(pid: int) -> int:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
