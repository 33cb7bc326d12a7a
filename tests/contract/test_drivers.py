"""What every driver does, whatever it drives (``boreas_agent.drivers.base``)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from boreas_agent.drivers.base import ALL_APPS, Driver
from boreas_agent.errors import Unavailable
from boreas_agent.model import Observed, Phase
from boreas_agent.records import carried, decode
from tests.contract.labs import DockerLab, FakeLab, Lab, ProcessLab
from tests.engine.processes import ground
from tests.waiting import eventually_async

DOCKER = pytest.param("docker", marks=pytest.mark.docker)


@pytest.fixture(params=["binary", "script", DOCKER, "fake"])
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    match request.param:
        case "docker":
            yield DockerLab(request.getfixturevalue("clean_engine"), request.getfixturevalue("docker_driver_factory"))
        case "fake":
            yield FakeLab()
        case kind:
            with ground(tmp_path) as place:
                yield ProcessLab(place, kind)


@asynccontextmanager
async def opened(lab: Lab) -> AsyncIterator[Driver]:
    driver = lab.driver()
    await driver.open()
    try:
        yield driver
    finally:
        await driver.close()


def using(lab: Lab, work: Callable[[Driver], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        async with opened(lab) as driver:
            await work(driver)

    asyncio.run(run())


async def only(driver: Driver, app: str = "web") -> Observed:
    found = await driver.observe(app)
    assert len(found) == 1, found
    return found[0]


async def seen_in(driver: Driver, phase: Phase, app: str = "web") -> Observed:
    async def check() -> list[Observed]:
        return [one for one in await driver.observe(app) if one.phase is phase]

    return (await eventually_async(check, 20))[0]


def test_what_nobody_started_is_not_there(lab: Lab) -> None:
    async def work(driver: Driver) -> None:
        assert list(await driver.observe("web")) == []
        assert dict(await driver.observe_all()) == {}

    using(lab, work)


def test_what_was_started_runs_and_carries_what_it_was_made_from(lab: Lab) -> None:
    async def work(driver: Driver) -> None:
        want = lab.lasting()
        await driver.prepare(want)
        assert await driver.prepared(want)
        await driver.start(want, 0)
        seen = await only(driver)
        assert (seen.name, seen.version, seen.hash, seen.phase, seen.misnamed) == (want.name, want.version, want.hash, Phase.RUNNING, False)
        assert seen.kind == want.pkg.type
        assert seen.exits == ()
        assert decode(seen.record).pkg == want.pkg
        assert seen.run == (1 if lab.counts_runs else 0)
        assert {app: list(found) for app, found in (await driver.observe_all()).items()} == {"web": [seen]}
        await driver.stop(seen, "SIGTERM", 10)

    using(lab, work)


def test_starting_what_runs_is_success_and_changes_nothing(lab: Lab) -> None:
    async def work(driver: Driver) -> None:
        want = lab.lasting()
        await driver.start(want, 0)
        first = await only(driver)
        await driver.start(want, first.run)
        await driver.start(want, 0)
        assert (await only(driver)).ref == first.ref
        await driver.stop(first, "SIGTERM", 10)

    using(lab, work)


def test_another_driver_of_the_node_adopts_it(lab: Lab) -> None:
    using(lab, lambda driver: driver.start(lab.lasting(), 0))

    async def work(driver: Driver) -> None:
        seen = await only(driver)
        assert seen.phase is Phase.RUNNING
        await driver.start(lab.lasting(), seen.run)
        assert (await only(driver)).ref == seen.ref
        await driver.stop(seen, "SIGTERM", 10)

    using(lab, work)


@pytest.mark.parametrize("code", [0, 1, 5])
def test_an_exit_is_known_with_its_code(lab: Lab, code: int) -> None:
    async def work(driver: Driver) -> None:
        await driver.start(lab.ending(code), 0)
        ended = (await seen_in(driver, Phase.EXITED)).last_exit
        assert ended is not None
        assert (ended.code, ended.signal, ended.lost, ended.ok) == (code, None, False, code == 0)

    using(lab, work)


def test_an_exit_nobody_recorded_is_still_known_to_the_next_driver(lab: Lab) -> None:
    using(lab, lambda driver: driver.start(lab.ending(3), 0))

    async def work(driver: Driver) -> None:
        ended = (await seen_in(driver, Phase.EXITED)).last_exit
        assert ended is not None
        assert ended.code == 3

    using(lab, work)


def test_a_kill_is_told_and_the_next_run_can_be_told_from_the_last(lab: Lab) -> None:
    async def work(driver: Driver) -> None:
        events = driver.events()
        want = lab.lasting()
        await driver.start(want, 0)
        first = await only(driver)
        lab.kill(first)

        async def told() -> str:
            async for app in events:
                if app in {"web", ALL_APPS} and (await only(driver)).phase is Phase.EXITED:
                    return app
            raise AssertionError

        await asyncio.wait_for(told(), 20)
        dead = await only(driver)
        assert dead.last_exit is not None
        assert not dead.last_exit.ok
        await driver.start(want, dead.run)
        second = await only(driver)
        assert second.phase is Phase.RUNNING
        lab.kill(second)
        again = await seen_in(driver, Phase.EXITED)
        assert again.last_exit is not None
        assert again.last_exit.run != dead.last_exit.run
        if driver.keeps_exits:
            assert [one.run for one in again.exits] == [dead.last_exit.run, again.last_exit.run]
        await events.aclose()  # type: ignore[attr-defined]

    using(lab, work)


def test_a_stop_ends_it_and_stopping_again_is_success(lab: Lab) -> None:
    async def work(driver: Driver) -> None:
        await driver.start(lab.lasting(), 0)
        seen = await only(driver)
        assert await driver.stop(seen, "SIGTERM", 10) is not None
        ended = await only(driver)
        assert ended.phase is Phase.EXITED
        await driver.stop(seen, "SIGTERM", 10)
        assert await only(driver) == ended

    using(lab, work)


def test_a_command_beside_it_tells_how_it_ended_and_what_it_said(lab: Lab) -> None:
    async def work(driver: Driver) -> None:
        await driver.start(lab.lasting(), 0)
        seen = await only(driver)
        assert seen.address == "127.0.0.1" or seen.kind == "docker"
        for code in (0, 3):
            executed = await driver.execute(seen, ["/bin/sh", "-c", f"echo said; exit {code}"], 20)
            assert (executed.code, executed.output.strip(), executed.problem) == (code, "said", "")
        await driver.stop(seen, "SIGTERM", 10)
        with pytest.raises(Unavailable):
            await driver.execute(seen, ["/bin/sh", "-c", "exit 0"], 20)

    using(lab, work)


def test_a_command_that_runs_once_is_no_instance_and_leaves_nothing(lab: Lab) -> None:
    async def work(driver: Driver) -> None:
        if lab.lasting().pkg.type == "script":
            return  # has no hooks
        for code in (0, 3):
            executed = await driver.run_once(lab.lasting(revision=2), ["/bin/sh", "-c", f"echo said; exit {code}"], 20)
            assert (executed.code, executed.output.strip(), executed.problem) == (code, "said", "")
        assert dict(await driver.observe_all()) == {}
        await driver.start(lab.lasting(), 0)
        seen = await only(driver)
        assert (await driver.run_once(lab.lasting(), ["/bin/sh", "-c", "exit 0"], 20)).code == 0
        assert await only(driver) == seen
        await driver.stop(seen, "SIGTERM", 10)

    using(lab, work)


def test_its_life_is_what_its_end_will_be_told_by(lab: Lab) -> None:
    async def work(driver: Driver) -> None:
        await driver.start(lab.lasting(), 0)
        seen = await only(driver)
        assert seen.life
        ended = await driver.stop(seen, "SIGTERM", 10)
        assert ended is not None
        assert ended.run == seen.life

    using(lab, work)


def test_what_is_removed_is_gone_and_removing_again_is_success(lab: Lab) -> None:
    async def work(driver: Driver) -> None:
        await driver.start(lab.lasting(), 0)
        seen = await only(driver)
        await driver.stop(seen, "SIGTERM", 10)
        await driver.remove(await only(driver))
        assert list(await driver.observe("web")) == []
        assert await driver.stop(seen, "SIGTERM", 10) is None
        assert dict(await driver.observe_all()) == {}

    using(lab, work)


def test_apps_and_revisions_are_told_apart(lab: Lab) -> None:
    async def work(driver: Driver) -> None:
        for want in (lab.lasting("a"), lab.lasting("b"), lab.lasting("b.c")):
            await driver.start(want, 0)
        assert {app: len(found) for app, found in (await driver.observe_all()).items()} == {"a": 1, "b": 1, "b.c": 1}
        await driver.stop(await only(driver, "b"), "SIGTERM", 10)
        await driver.start(lab.lasting("b", revision=2), 0)
        assert {one.name.revision: one.phase for one in await driver.observe("b")} == {1: Phase.EXITED, 2: Phase.RUNNING}
        for found in (await driver.observe_all()).values():
            for one in found:
                await driver.stop(one, "SIGTERM", 10)
                await driver.remove(one)
        assert dict(await driver.observe_all()) == {}

    using(lab, work)


def test_many_starts_at_once_make_one_copy(lab: Lab) -> None:
    async def work(driver: Driver) -> None:
        want = lab.lasting()
        await driver.start(want, 0)
        first = await only(driver)
        await asyncio.gather(*(driver.start(want, 0) for _ in range(20)))
        assert await only(driver) == first
        await driver.stop(first, "SIGTERM", 10)

    using(lab, work)


@pytest.mark.parametrize("lab", ["binary", DOCKER, "fake"], indirect=True)  # scripts run anew with each revision
def test_what_is_reloaded_runs_on_as_something_else_under_its_own_name(lab: Lab) -> None:
    before, after = lab.telling("one"), lab.telling("two", revision=2)

    async def work(driver: Driver) -> None:
        await driver.prepare(before)
        await driver.start(before, 0)
        seen = await only(driver)
        assert (seen.hash, seen.reloaded, seen.revision) == (before.hash, None, 1)
        await driver.prepare(after)
        for _ in range(2):  # a repetition is harmless
            assert await driver.reload(seen, after, ("SIGHUP",))
        became = await only(driver)
        assert (became.name, became.hash, became.record, became.revision) == (before.name, after.hash, after.record, 2)
        assert (became.phase, became.ref, became.run_key, became.exits) == (Phase.RUNNING, seen.ref, seen.run_key, ())
        assert became.reloaded is not None
        assert became.started is not None
        assert became.reloaded >= became.started

    using(lab, work)

    async def next_one(driver: Driver) -> None:
        became = await only(driver)
        assert (became.hash, became.record, became.phase) == (after.hash, after.record, Phase.RUNNING)
        assert became.reloaded is not None
        lab.kill(became)
        await seen_in(driver, Phase.EXITED)
        await driver.start(carried(became.record, became.name), became.run)
        again = await seen_in(driver, Phase.RUNNING)
        assert (again.name, again.hash, again.reloaded) == (before.name, after.hash, None)
        assert again.ref == became.ref or lab.counts_runs  # the same container
        assert await driver.reload(again, before, ("SIGHUP",))  # and back
        again = await only(driver)
        assert (again.hash, again.record, again.revision) == (before.hash, before.record, 1)
        await driver.stop(again, "SIGKILL", 0)
        await driver.remove(again)
        assert not await driver.reload(again, after, ("SIGHUP",))  # what is gone is told nothing
        assert list(await driver.observe("web")) == []

    using(lab, next_one)
