"""An engine that is away, hangs, loses answers or fails: unknown is not absent, and nothing is doubled."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from boreas_agent.clock import SystemClock
from boreas_agent.drivers.docker import DockerDriver
from boreas_agent.errors import Terminal, Transient, Unavailable
from boreas_agent.model import Observed, Phase
from tests.engine.engine import Engine
from tests.engine.proxy import Proxy
from tests.engine.wants import Make, only, opened, shell, using, want
from tests.waiting import eventually_async

pytestmark = pytest.mark.docker

NODE = "6f1d6f0c-0000-4000-8000-000000000000"


@pytest.fixture
def make(docker_proxy: Proxy) -> Make:
    """Drivers that go through the proxy and have little patience."""
    return lambda: DockerDriver(docker_proxy.socket, NODE, SystemClock(), timeout=1.0)


def test_a_name_that_the_engine_has_not_let_go_of_yet_is_waited_for(make: Make, docker_proxy: Proxy) -> None:
    """``docker rm -f``: the container is gone, and for some more milliseconds its name is taken."""
    docker_proxy.fail("POST .*/containers/create", 409, "the name is in use", times=4)

    async def work(driver: DockerDriver) -> Observed:
        await driver.start(want(), 0)
        return await only(driver)

    assert using(make, work).phase is Phase.RUNNING


def test_a_name_that_never_becomes_free_is_named(make: Make, docker_proxy: Proxy) -> None:
    docker_proxy.fail("POST .*/containers/create", 409, "the name is in use")

    async def work(driver: DockerDriver) -> None:
        with pytest.raises(Transient, match=r"^cannot start web: the container name web\.1\.0\.\w+ does not become free$"):
            await driver.start(want(), 0)

    using(make, work)


@pytest.mark.parametrize("status", [403, 429])
def test_a_container_that_nobody_may_look_at_is_not_taken_for_gone(make: Make, docker_proxy: Proxy, status: int) -> None:
    async def work(driver: DockerDriver) -> None:
        await driver.start(want(), 0)
        docker_proxy.fail("GET .*/containers/[0-9a-f]{64}/json", status, "denied by a plugin")
        async with opened(make()) as other:
            with pytest.raises(Unavailable, match="denied by a plugin"):
                await other.observe("web")
            assert await other.observe_all() == {"web": None}

    using(make, work)


def test_a_disabled_docker_says_so() -> None:
    async def work(driver: DockerDriver) -> None:
        for attempt in (
            driver.observe("web"),
            driver.observe_all(),
            driver.start(want(), 0),
            driver.prepare(want()),
            driver.prepared(want()),
        ):
            with pytest.raises(Unavailable, match=r"^Docker is disabled in the configuration$"):
                await attempt
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(aiter(driver.events())), 0.05)

    using(lambda: DockerDriver("/nowhere", NODE, SystemClock(), enabled=False), work)


def test_a_socket_that_is_not_there_is_named_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "docker.sock"

    async def work(driver: DockerDriver) -> None:
        for attempt in (driver.observe("web"), driver.observe_all(), driver.start(want(), 0), driver.prepare(want())):
            with pytest.raises(Unavailable) as error:
                await attempt
            assert str(error.value) == f"cannot reach Docker at {path}: no such file; is the engine running?"

    using(lambda: DockerDriver(str(path), NODE, SystemClock()), work)


def test_a_socket_nobody_listens_on_is_unavailable(docker_proxy: Proxy, tmp_path: Path) -> None:
    path = tmp_path / "docker.sock"
    Proxy(path, Path(docker_proxy.socket)).close()
    path.touch()

    async def work(driver: DockerDriver) -> None:
        with pytest.raises(Unavailable, match="connection refused; is the engine running"):
            await driver.observe("web")

    using(lambda: DockerDriver(str(path), NODE, SystemClock()), work)


def test_a_create_whose_answer_was_lost_is_adopted(docker_proxy: Proxy, make: Make, clean_engine: Engine) -> None:
    docker_proxy.lose_reply("POST .*/containers/create")

    async def work(driver: DockerDriver) -> tuple[Observed, Observed]:
        with pytest.raises(Transient):
            await driver.start(want(), 0)
        left = await only(driver)
        await driver.start(want(), 0)
        return left, await only(driver)

    left, started = using(make, work)
    assert left.phase is Phase.CREATED
    assert (started.ref, started.phase) == (left.ref, Phase.RUNNING)
    assert len(clean_engine.client.containers(all=True)) == 1


def test_a_start_whose_answer_was_lost_is_seen_running(docker_proxy: Proxy, make: Make) -> None:
    docker_proxy.lose_reply("POST .*/start")

    async def work(driver: DockerDriver) -> tuple[Observed, Observed]:
        with pytest.raises(Transient):
            await driver.start(want(), 0)
        left = await only(driver)
        await driver.start(want(), 0)
        return left, await only(driver)

    left, again = using(make, work)
    assert left.phase is Phase.RUNNING
    assert again == left


def test_a_cut_connection_is_unavailable_and_the_next_call_works(docker_proxy: Proxy, make: Make) -> None:
    async def work(driver: DockerDriver) -> None:
        await driver.start(want(), 0)
        docker_proxy.cut("GET .*/containers/json", times=1)
        with pytest.raises(Unavailable, match=r"^cannot reach Docker at "):
            await driver.observe("web")
        assert (await only(driver)).phase is Phase.RUNNING

    using(make, work)


@pytest.mark.parametrize("status", [500, 503])
def test_an_engine_that_fails_to_list_is_unavailable_not_empty(docker_proxy: Proxy, make: Make, status: int) -> None:
    docker_proxy.fail("GET .*/containers/json", status, "the engine has a bad day")

    async def work(driver: DockerDriver) -> None:
        with pytest.raises(Unavailable, match=r"^cannot list the containers: the engine has a bad day$"):
            await driver.observe_all()

    using(make, work)


def test_a_change_that_fails_while_the_engine_shuts_down_is_unavailable(docker_proxy: Proxy, make: Make) -> None:
    docker_proxy.fail("POST .*/containers/create", 500, "context canceled")

    async def work(driver: DockerDriver) -> None:
        with pytest.raises(Unavailable, match="context canceled"):
            await driver.start(want(), 0)

    using(make, work)


def test_a_create_the_engine_calls_malformed_is_terminal(docker_proxy: Proxy, make: Make) -> None:
    docker_proxy.fail("POST .*/containers/create", 400, "invalid mode: /x")

    async def work(driver: DockerDriver) -> None:
        with pytest.raises(Terminal, match=r"^cannot create web: invalid mode: /x$"):
            await driver.start(want(), 0)

    using(make, work)


def test_a_list_that_hangs_is_unavailable_after_its_deadline(docker_proxy: Proxy, make: Make) -> None:
    docker_proxy.hang("GET .*/containers/json")

    async def work(driver: DockerDriver) -> float:
        began = time.monotonic()
        with pytest.raises(Unavailable, match=r"did not answer within 1 s$"):
            await driver.observe("web")
        return time.monotonic() - began

    assert using(make, work) < 3


def test_a_start_that_hangs_is_a_failed_start(docker_proxy: Proxy, make: Make) -> None:
    docker_proxy.hang("POST .*/start")

    async def work(driver: DockerDriver) -> None:
        with pytest.raises(Transient, match=r"^cannot start web: .* did not answer within 4 s$") as error:
            await driver.start(want(), 0)
        assert not isinstance(error.value, Unavailable)

    using(make, work)


def test_hanging_calls_of_one_app_do_not_delay_another(docker_proxy: Proxy, clean_engine: Engine) -> None:
    def patient() -> DockerDriver:
        return DockerDriver(docker_proxy.socket, NODE, SystemClock(), timeout=15.0)

    async def work(driver: DockerDriver) -> float:
        creates, lists = "POST .*/containers/create.name=hanging", "GET .*/containers/json.*boreas.app%3Dhanging"
        rules = [docker_proxy.hang(creates), docker_proxy.hang(lists)]

        async def hangs(pattern: str, calls: list[Coroutine[Any, Any, Any]]) -> list[asyncio.Task[Any]]:
            tasks = [asyncio.create_task(call) for call in calls]

            async def enough() -> bool:
                return docker_proxy.count(pattern) > 2

            await eventually_async(enough)
            return tasks

        stuck = await hangs(creates, [driver.start(want("hanging", replica=replica), 0) for replica in range(6)])
        stuck += await hangs(lists, [driver.observe("hanging") for _ in range(6)])
        began = time.monotonic()
        await driver.start(want("quick"), 0)
        assert (await only(driver, "quick")).phase is Phase.RUNNING
        seconds = time.monotonic() - began
        assert not any(task.done() for task in stuck)
        for rule in rules:
            docker_proxy.release(rule)
        await asyncio.gather(*stuck)
        return seconds

    assert using(patient, work) < 5


def test_a_container_the_engine_cannot_inspect_makes_only_its_own_app_unknown(docker_proxy: Proxy, make: Make) -> None:
    async def start(driver: DockerDriver) -> str:
        for app in ("stuck", "fine"):
            await driver.start(want(app), 0)
        return (await only(driver, "stuck")).ref

    ref = using(make, start)
    docker_proxy.hang(f"GET .*/containers/{ref}/json")

    async def look(driver: DockerDriver) -> None:
        everything = await driver.observe_all()
        assert everything["stuck"] is None
        assert [one.phase for one in everything["fine"] or ()] == [Phase.RUNNING]
        assert (await only(driver, "fine")).phase is Phase.RUNNING
        with pytest.raises(Unavailable):
            await driver.observe("stuck")

    using(make, look)


def test_many_long_stops_at_once_hold_nothing_up(docker_proxy: Proxy, make: Make) -> None:
    apps = [f"stubborn-{n}" for n in range(6)]

    async def work(driver: DockerDriver) -> float:
        seen = []
        for app in apps:
            await driver.start(shell("trap '' TERM; while :; do sleep 1; done", app), 0)
            seen.append(await only(driver, app))
        stops = [asyncio.create_task(driver.stop(one, "SIGTERM", 3600)) for one in seen]

        async def waiting() -> bool:
            return docker_proxy.count("/wait") == len(apps)

        await eventually_async(waiting)
        began = time.monotonic()
        assert len(await driver.observe_all()) == len(apps)
        seconds = time.monotonic() - began
        for stop in stops:
            stop.cancel()
        await asyncio.gather(*stops, return_exceptions=True)
        return seconds

    assert using(make, work) < 2


def test_a_quiet_node_is_looked_at_with_one_call(docker_proxy: Proxy, make: Make) -> None:
    async def work(driver: DockerDriver) -> tuple[int, int]:
        for app in ("one", "two", "three"):
            await driver.start(shell("exit 0", app), 0)

        async def all_known() -> bool:
            found = await driver.observe_all()
            return all(one.last_exit for instances in found.values() for one in instances)

        await eventually_async(all_known)

        async def remembered() -> bool:  # the engine's list shows ages in seconds, so another second may need another inspect
            before = len(docker_proxy.requests)
            await driver.observe_all()
            return len(docker_proxy.requests) == before + 1

        return await eventually_async(remembered), docker_proxy.count("GET .*/json")

    assert using(make, work)[0]
