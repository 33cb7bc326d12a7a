"""Pulls: what is missing is fetched, once for all who want it, and given up when nobody does any more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from boreas_agent.clock import SystemClock
from boreas_agent.drivers.docker import DockerDriver
from boreas_agent.drivers.docker_api import DockerApi
from boreas_agent.drivers.docker_auth import Auth
from boreas_agent.drivers.docker_images import Images
from boreas_agent.drivers.docker_streams import Streams
from boreas_agent.errors import Terminal, Transient
from boreas_agent.model import Phase
from tests.engine.engine import IMAGE, Engine
from tests.engine.proxy import Proxy
from tests.engine.registry import Registry
from tests.engine.wants import Make, only, using, want
from tests.waiting import eventually_async

pytestmark = pytest.mark.docker

NODE = "a2f6ad0a-0000-4000-8000-000000000000"


@pytest.fixture
def absent(clean_engine: Engine, registry: Registry) -> Iterator[str]:
    """The reference of an image that is in the registry alone, before the test and after it."""
    yield registry.image
    clean_engine.remove_containers()
    _drop(clean_engine, registry.image)


def _drop(engine: Engine, reference: str) -> None:
    if reference in {tag for image in engine.client.images() for tag in image["RepoTags"] or ()}:
        engine.client.remove_image(reference)


def test_a_missing_image_is_pulled_and_then_it_is_here(absent: str, docker_driver_factory: Make) -> None:
    async def work(driver: DockerDriver) -> None:
        wanted = want(image=absent)
        assert not await driver.prepared(wanted)
        await driver.prepare(wanted)
        assert await driver.prepared(wanted)
        await driver.prepare(wanted)
        await driver.start(wanted, 0)
        assert (await only(driver)).phase is Phase.RUNNING

    using(docker_driver_factory, work)


def test_an_image_can_be_named_by_its_digest(absent: str, clean_engine: Engine, docker_driver_factory: Make) -> None:
    clean_engine.client.pull(absent)
    digest = clean_engine.client.inspect_image(absent)["RepoDigests"][0]
    clean_engine.client.remove_image(absent)

    async def work(driver: DockerDriver) -> None:
        wanted = want(image=digest)
        assert not await driver.prepared(wanted)
        await driver.prepare(wanted)
        await driver.start(wanted, 0)
        assert (await only(driver)).phase is Phase.RUNNING

    using(docker_driver_factory, work)
    clean_engine.remove_containers()
    clean_engine.client.remove_image(digest)


def test_the_configured_registry_is_for_references_that_name_none(absent: str, registry: Registry, clean_engine: Engine) -> None:
    async def work(driver: DockerDriver) -> str:
        await driver.prepare(want(image="base:1"))
        await driver.start(want(image="base:1"), 0)
        return (await only(driver)).ref

    ref = using(lambda: DockerDriver(clean_engine.socket, NODE, SystemClock(), registry=registry.host), work)
    assert clean_engine.client.inspect_container(ref)["Config"]["Image"] == absent


def test_an_image_that_nobody_has_is_tried_again_later(registry: Registry, docker_driver_factory: Make) -> None:
    missing = f"{registry.host}/no/such:1"

    async def work(driver: DockerDriver) -> None:
        with pytest.raises(Transient, match=rf"^cannot pull {missing}: .*(not found|unknown)"):
            await driver.prepare(want(image=missing))

    using(docker_driver_factory, work)


def test_a_registry_that_is_away_is_tried_again_later(docker_driver_factory: Make) -> None:
    async def work(driver: DockerDriver) -> None:
        with pytest.raises(Transient, match=r"^cannot pull 127\.0\.0\.1:1/x:latest: .*connection refused"):
            await driver.prepare(want(image="127.0.0.1:1/x"))

    using(docker_driver_factory, work)


def test_a_reference_the_engine_calls_malformed_is_terminal(docker_proxy: Proxy) -> None:
    docker_proxy.fail("POST .*/images/create", 400, "invalid reference format")

    async def work(driver: DockerDriver) -> None:
        with pytest.raises(Terminal, match=r"^cannot pull no/such:latest: invalid reference format$"):
            await driver.prepare(want(image="no/such"))

    using(lambda: DockerDriver(docker_proxy.socket, NODE, SystemClock()), work)


def test_an_image_removed_since_it_was_seen_fails_the_start_and_is_pulled_next_time(
    absent: str, clean_engine: Engine, docker_driver_factory: Make
) -> None:
    async def work(driver: DockerDriver) -> None:
        wanted = want(image=absent)
        await driver.prepare(wanted)
        await asyncio.to_thread(clean_engine.client.remove_image, absent)
        with pytest.raises(Transient, match=rf"^cannot start web: image {absent} is not here any more$"):
            await driver.start(wanted, 0)
        assert not await driver.prepared(wanted)

    using(docker_driver_factory, work)


def test_apps_that_want_one_image_share_its_pull(absent: str, docker_proxy: Proxy) -> None:
    rule = docker_proxy.hang("POST .*/images/create")

    async def work() -> None:
        api = DockerApi(docker_proxy.socket, timeout=15.0)
        streams = Streams(api, stall=60.0)
        images = Images(api, streams, SystemClock(), Auth())
        await streams.open()
        pulls = [asyncio.create_task(images.pull(f"app-{n}", absent)) for n in range(5)]

        async def pulling() -> bool:
            return docker_proxy.count("/images/create") == 1

        await eventually_async(pulling)
        pulls[0].cancel()  # who gives up leaves the pull to the others
        await asyncio.gather(pulls[0], return_exceptions=True)
        docker_proxy.release(rule)
        await asyncio.gather(*pulls[1:])
        assert await images.present("app-1", absent)
        await images.close()
        await streams.close()
        api.forget()

    asyncio.run(work())
    assert docker_proxy.count("/images/create") == 1


def test_a_pull_that_nobody_wants_any_more_is_given_up(registry_proxy: Proxy, clean_engine: Engine, docker_driver_factory: Make) -> None:
    image = f"127.0.0.1:{registry_proxy.port}/base:1"
    rule = registry_proxy.stall("GET /v2/base/blobs", 100_000)
    already = _pulls_given_up(clean_engine)

    async def work(driver: DockerDriver) -> None:
        pull = asyncio.create_task(driver.prepare(want(image=image)))

        async def half_way() -> bool:
            return registry_proxy.count("/blobs/") > 0

        async def given_up() -> bool:
            return _pulls_given_up(clean_engine) > already

        async def nothing_under_way() -> bool:
            return registry_proxy.open_connections == 0

        await eventually_async(half_way)
        pull.cancel()
        await asyncio.gather(pull, return_exceptions=True)
        assert pull.cancelled()
        await eventually_async(given_up)
        registry_proxy.release(rule)
        await eventually_async(nothing_under_way)
        assert not await driver.prepared(want(image=image))

    using(docker_driver_factory, work)


def _pulls_given_up(engine: Engine) -> int:
    """By the engine's log, as its API says nothing about a pull whose client has gone."""
    return engine.log_tail(100_000).count("Not continuing with pull after error: context canceled")


def test_a_pull_without_progress_is_ended(registry: Registry, registry_proxy: Proxy, clean_engine: Engine) -> None:
    image = f"127.0.0.1:{registry_proxy.port}/base:1"
    registry_proxy.hang("GET /v2/base/blobs")

    async def work(driver: DockerDriver) -> float:
        began = time.monotonic()
        with pytest.raises(Transient, match=rf"^cannot pull {image}: no progress for 0\.5 s$"):
            await driver.prepare(want(image=image))
        return time.monotonic() - began

    assert using(lambda: DockerDriver(clean_engine.socket, NODE, SystemClock(), stall=0.5), work) < 10


def test_a_hanging_pull_delays_no_other_app(registry: Registry, registry_proxy: Proxy, docker_driver_factory: Make) -> None:
    registry_proxy.hang("GET /v2/base/blobs")

    async def work(driver: DockerDriver) -> float:
        pull = asyncio.create_task(driver.prepare(want("slow", image=f"127.0.0.1:{registry_proxy.port}/base:1")))

        async def half_way() -> bool:
            return registry_proxy.count("/blobs/") > 0

        await eventually_async(half_way)
        began = time.monotonic()
        await driver.prepare(want("quick", image=IMAGE))
        await driver.start(want("quick"), 0)
        assert (await only(driver, "quick")).phase is Phase.RUNNING
        seconds = time.monotonic() - began
        pull.cancel()
        await asyncio.gather(pull, return_exceptions=True)
        return seconds

    assert using(docker_driver_factory, work) < 5
