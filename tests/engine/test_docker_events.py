"""What happens behind the agent's back is noticed at once, and an engine that comes back is taken up again."""

from __future__ import annotations

import asyncio
import signal
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from boreas_agent.clock import SystemClock
from boreas_agent.drivers.base import ALL_APPS
from boreas_agent.drivers.docker import DockerDriver
from boreas_agent.errors import Unavailable
from boreas_agent.model import Observed, Phase
from tests.engine.engine import Engine
from tests.engine.proxy import Proxy
from tests.engine.wants import Make, only, seen_in, using, want
from tests.waiting import eventually_async

pytestmark = pytest.mark.docker


class Heard:
    """Collects what ``events`` yields, with the time of hearing."""

    def __init__(self) -> None:
        self.apps: list[tuple[str, float]] = []

    async def listen(self, driver: DockerDriver) -> None:
        async for app in driver.events():
            self.apps.append((app, time.monotonic()))

    async def hears(self, app: str, after: int = 0, seconds: float = 10.0) -> float:
        async def check() -> float | None:
            return next((at for name, at in self.apps[after:] if name == app), None)

        at = await eventually_async(check, seconds)
        assert at is not None
        return at


@asynccontextmanager
async def listening(driver: DockerDriver) -> AsyncIterator[Heard]:
    heard = Heard()
    task = asyncio.create_task(heard.listen(driver))
    try:
        await heard.hears(ALL_APPS)
        yield heard
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _do(engine: Engine, what: str, ref: str) -> None:
    match what:
        case "docker stop":
            engine.client.stop(ref, timeout=10)
        case "docker rm -f":
            engine.client.remove_container(ref, force=True)
        case "docker kill":
            engine.client.kill(ref)
        case "docker pause":
            engine.client.pause(ref)
        case "docker rename":
            engine.client.rename(ref, "renamed-by-somebody")


@pytest.mark.parametrize("what", ["docker stop", "docker rm -f", "docker kill", "docker pause", "docker rename"])
def test_what_a_user_does_to_a_container_is_heard_and_then_seen(clean_engine: Engine, docker_driver_factory: Make, what: str) -> None:
    async def work(driver: DockerDriver) -> tuple[Observed, list[Observed]]:
        await driver.start(want(), 0)
        before = await only(driver)
        async with listening(driver) as heard:
            mark = len(heard.apps)
            await asyncio.to_thread(_do, clean_engine, what, before.ref)
            await heard.hears("web", mark)

            async def changed() -> bool:
                return list(await driver.observe("web")) != [before]

            await eventually_async(changed)
            return before, list(await driver.observe("web"))

    before, after = using(docker_driver_factory, work)
    match what:
        case "docker rm -f":
            assert after == []
        case "docker pause":
            assert after[0].phase is Phase.PAUSED
        case "docker rename":
            assert (after[0].misnamed, after[0].phase, after[0].started) == (True, Phase.RUNNING, before.started)
        case "docker kill":
            assert after[0].last_exit is not None
            assert after[0].last_exit.signal == "SIGKILL"
        case _:
            assert after[0].last_exit is not None
            assert after[0].last_exit.code == 0


def test_the_end_of_a_process_is_heard_within_milliseconds(clean_engine: Engine, docker_driver_factory: Make) -> None:
    lags = []

    async def work(driver: DockerDriver) -> None:
        async with listening(driver) as heard:
            for _ in range(5):
                await driver.start(want(), 0)
                ref = (await only(driver)).ref
                mark = len(heard.apps)
                began = time.monotonic()
                await asyncio.to_thread(clean_engine.client.kill, ref)
                lags.append(await heard.hears("web", mark) - began)
                await seen_in(driver, Phase.EXITED)

    using(docker_driver_factory, work)
    print("kill to wake, ms:", [round(lag * 1000, 1) for lag in lags])
    assert statistics.median(lags) < 1.0


def test_an_event_with_a_huge_label_is_heard(docker_driver_factory: Make) -> None:
    async def work(driver: DockerDriver) -> None:
        async with listening(driver) as heard:
            await driver.start(want(environment={"BIG": "x" * 100_000}), 0)
            await heard.hears("web")

    using(docker_driver_factory, work)


def test_a_lost_event_stream_is_taken_up_again_and_everything_is_looked_at(docker_proxy: Proxy) -> None:
    async def work(driver: DockerDriver) -> None:
        async with listening(driver) as heard:
            mark = len(heard.apps)
            await asyncio.to_thread(docker_proxy.cut_open)
            await heard.hears(ALL_APPS, mark)
            await heard.hears(ALL_APPS, mark + 1)  # once when lost, once when back
            mark = len(heard.apps)
            await driver.start(want(), 0)
            await heard.hears("web", mark)

    using(lambda: DockerDriver(docker_proxy.socket, "another-node", SystemClock()), work)


def test_with_live_restore_an_engine_restart_keeps_ids_and_runs(clean_engine: Engine, docker_driver_factory: Make) -> None:
    async def work(driver: DockerDriver) -> tuple[Observed, Observed]:
        await driver.start(want(), 0)
        before = await only(driver)
        async with listening(driver) as heard:
            mark = len(heard.apps)
            await asyncio.to_thread(clean_engine.restart, live_restore=True)
            await heard.hears(ALL_APPS, mark + 1, 20)
        return before, await only(driver)

    before, after = using(docker_driver_factory, work)
    assert (after.ref, after.phase, after.started) == (before.ref, Phase.RUNNING, before.started)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_without_live_restore_an_engine_restart_ends_runs_and_each_is_started_once(
    clean_engine: Engine, docker_driver_factory: Make, how: signal.Signals
) -> None:
    clean_engine.set_live_restore(on=False)

    async def work(driver: DockerDriver) -> tuple[Observed, Observed, Observed]:
        await driver.start(want(), 0)
        before = await only(driver)
        async with listening(driver) as heard:
            mark = len(heard.apps)
            await asyncio.to_thread(clean_engine.stop, how)
            with pytest.raises(Unavailable, match="is the engine running"):
                await driver.observe("web")
            await asyncio.to_thread(clean_engine.start)
            await heard.hears(ALL_APPS, mark + 1, 20)
        ended = await seen_in(driver, Phase.EXITED)
        await driver.start(want(), 0)
        return before, ended, await only(driver)

    before, ended, after = using(docker_driver_factory, work)
    assert before.ref == ended.ref == after.ref
    assert ended.last_exit is not None
    assert after.phase is Phase.RUNNING
    assert len(clean_engine.client.containers(all=True)) == 1


def test_an_engine_that_appears_later_is_found(clean_engine: Engine, docker_driver_factory: Make) -> None:
    clean_engine.stop()

    async def work(driver: DockerDriver) -> None:
        heard = Heard()
        task = asyncio.create_task(heard.listen(driver))
        with pytest.raises(Unavailable):
            await driver.observe_all()
        await asyncio.to_thread(clean_engine.start)
        await heard.hears(ALL_APPS)
        assert await driver.observe_all() == {}
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    try:
        using(docker_driver_factory, work)
    finally:
        clean_engine.ensure()
