"""Images that the agent has pulled go when nobody needs them; all others stay."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from boreas_agent.clock import SystemClock
from boreas_agent.drivers.docker import DockerDriver
from boreas_agent.housekeeping import Housekeeping
from boreas_agent.image_gc import Policy
from boreas_agent.store.store import Store
from tests.engine.engine import Engine
from tests.engine.node import Node
from tests.engine.registry import Registry
from tests.engine.test_rollouts_docker import box
from tests.engine.wants import opened, want
from tests.unit.store_harness import BY, submission
from tests.unit.store_harness import opened as store_of
from tests.waiting import eventually, eventually_async

pytestmark = pytest.mark.docker

NODE = "a2f6ad0a-0000-4000-8000-000000000000"
FULL = Policy(min_age=0, max_age=0, high_percent=0, low_percent=-1)
"""The disk is always too full."""
ROOMY = Policy(min_age=0, max_age=0, high_percent=100, low_percent=99)


@pytest.fixture
def images(clean_engine: Engine, registry: Registry) -> Iterator[list[str]]:
    """Four images of the registry; what is left of them at the end goes."""
    made = [registry.push(f"gc-{number}:1") for number in range(4)]
    yield made
    clean_engine.remove_containers()
    for image in clean_engine.client.images():
        tags = image["RepoTags"] or ()
        if any("/gc-" in tag or "kept" in tag for tag in (*tags, *(image["RepoDigests"] or ()))):
            clean_engine.client.remove_image(image["Id"], force=True)


def _here(engine: Engine) -> set[str]:
    return {tag for image in engine.client.images() for tag in image["RepoTags"] or ()}


def looking(engine: Engine, folder: Path, policy: Policy, work: Callable[[DockerDriver, Store, Housekeeping], Awaitable[None]]) -> None:
    """Run ``work`` with a driver, a store, and housekeeping that remembers pulls, and looks when it is told to."""

    async def run() -> None:
        driver = DockerDriver(engine.socket, NODE, SystemClock())
        async with opened(driver), store_of(folder) as store:
            keeping = Housekeeping(store, driver, SystemClock(), 1000.0, policy)
            running = asyncio.create_task(keeping.run())
            try:
                await work(driver, store, keeping)
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)

    asyncio.run(run())


async def _pull(driver: DockerDriver, store: Store, *references: str) -> None:
    before = len(await store.images())
    for reference in references:
        await driver.prepare(want(image=reference))

    async def noted() -> bool:
        return len(await store.images()) == before + len(references)

    await eventually_async(noted)


def test_only_what_was_pulled_and_is_needed_by_nobody_goes(clean_engine: Engine, images: list[str], tmp_path: Path) -> None:
    running, wanted, theirs, unneeded = images
    others = _here(clean_engine)

    async def work(driver: DockerDriver, store: Store, keeping: Housekeeping) -> None:
        await _pull(driver, store, *images)
        await store.apply(submission("web", image=wanted), BY)
        await asyncio.to_thread(clean_engine.run, "somebodys", Image=running)
        await asyncio.to_thread(clean_engine.client.tag, theirs, "boreas-test/kept", "1")
        await keeping.look()
        assert await asyncio.to_thread(_here, clean_engine) >= set(images)  # none has been idle yet
        await keeping.look()
        assert await asyncio.to_thread(_here, clean_engine) == others | {running, wanted, theirs, "boreas-test/kept:1"}
        assert {one.names for one in await store.images()} == {(running,), (wanted,), (theirs,)}
        (event,) = [one["message"] for one in await store.events() if one["kind"] == "ImageRemoved"]
        assert event.startswith(f"removed image {unneeded} (")
        assert "% full" in event
        assert not await driver.prepared(want(image=unneeded))

    looking(clean_engine, tmp_path, FULL, work)


def test_what_was_here_before_is_not_ours_though_it_was_pulled_again(clean_engine: Engine, images: list[str], tmp_path: Path) -> None:
    repository, _, tag = images[0].rpartition(":")
    clean_engine.client.pull(repository, tag)

    async def work(driver: DockerDriver, store: Store, keeping: Housekeeping) -> None:
        await driver.prepare(want(image=images[0], pull_policy="always"))
        await _pull(driver, store, images[1])
        assert [one.names for one in await store.images()] == [(images[1],)]
        await keeping.look()
        await keeping.look()
        assert images[0] in await asyncio.to_thread(_here, clean_engine)

    looking(clean_engine, tmp_path, FULL, work)


def test_an_image_that_was_pulled_by_two_names_goes_with_both(
    clean_engine: Engine, images: list[str], registry: Registry, tmp_path: Path
) -> None:
    async def work(driver: DockerDriver, store: Store, keeping: Housekeeping) -> None:
        await _pull(driver, store, images[0])
        other = f"{registry.host}/gc-other:2"
        await asyncio.to_thread(_push_as, clean_engine, images[0], other)
        await driver.prepare(want(image=other))

        async def noted() -> bool:
            return [one.names for one in await store.images()] == [(images[0], other)]

        await eventually_async(noted)
        assert await asyncio.to_thread(_here, clean_engine) >= {images[0], other}
        await keeping.look()
        await keeping.look()
        assert not await asyncio.to_thread(_here, clean_engine) & {images[0], other}
        assert await store.images() == []

    looking(clean_engine, tmp_path, FULL, work)


def _push_as(engine: Engine, image: str, other: str) -> None:
    """The registry has the image by another name, too; this engine does not know that name."""
    repository, _, tag = other.rpartition(":")
    engine.client.tag(image, repository, tag)
    engine.client.push(repository, tag)
    engine.client.remove_image(other)


def test_with_room_enough_an_image_goes_by_its_age_alone(clean_engine: Engine, images: list[str], tmp_path: Path) -> None:
    async def work(driver: DockerDriver, store: Store, keeping: Housekeeping) -> None:
        await _pull(driver, store, images[0])
        await keeping.look()
        await keeping.look()
        assert images[0] in await asyncio.to_thread(_here, clean_engine)
        old = Housekeeping(store, driver, SystemClock(), 1000.0, Policy(0, 0.001, 100, 99))
        await old.look()
        await old.look()
        assert images[0] not in await asyncio.to_thread(_here, clean_engine)
        assert await store.images() == []

    looking(clean_engine, tmp_path, ROOMY, work)


def test_what_people_have_removed_is_off_the_record(clean_engine: Engine, images: list[str], tmp_path: Path) -> None:
    async def work(driver: DockerDriver, store: Store, keeping: Housekeeping) -> None:
        await _pull(driver, store, images[0])
        await asyncio.to_thread(clean_engine.client.remove_image, images[0])
        await keeping.look()
        assert await store.images() == []
        assert not [one for one in await store.events() if one["kind"] == "ImageRemoved"]

    looking(clean_engine, tmp_path, ROOMY, work)


def test_a_network_that_was_made_in_vain_goes(clean_engine: Engine, tmp_path: Path) -> None:
    async def work(driver: DockerDriver, store: Store, keeping: Housekeeping) -> None:
        networks = [{"name": name, "create": True} for name in ("vain", "wanted")]
        await driver.prepare(want(networks=networks))
        await store.apply(submission("web", networks=["wanted"]), BY)
        await keeping.look()
        names = {network["Name"] for network in await asyncio.to_thread(clean_engine.client.networks)}
        await asyncio.to_thread(clean_engine.client.remove_network, "wanted")
        assert names >= {"wanted"}
        assert "vain" not in names

    looking(clean_engine, tmp_path, ROOMY, work)


def test_an_agent_keeps_what_runs_and_what_it_would_go_back_to(clean_engine: Engine, images: list[str], tmp_path: Path) -> None:
    image_gc = {"interval": 0.2, "min_age": 0, "max_age": 0.3}
    config = tmp_path / "agent.yaml"
    config.write_text(json.dumps({"agent": {"docker": {"image_gc": image_gc}}}))
    node = Node(tmp_path / "node", clean_engine.socket)
    node.arguments = ("--config", str(config))
    node.start()
    try:
        for number, image in enumerate(images[:3], 1):
            node.apply("web", f"v{number}", **box(clean_engine, image=image))
            node.reaches("web", "running", revision=number)
        eventually(lambda: images[0] not in _here(clean_engine), 20)
        assert _here(clean_engine) >= set(images[1:3])
        node.request("DELETE", "/v1/apps/web")
        eventually(lambda: not _here(clean_engine) & set(images), 20)
        eventually(lambda: len(node.sql("SELECT 1 FROM v_images WHERE removed_at IS NOT NULL")) == 3)
    finally:
        node.clean_up()
