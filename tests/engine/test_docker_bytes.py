"""What ran is what runs again, whatever the tag names by now; and what pull_policy makes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from boreas_agent.drivers.docker import DockerDriver
from boreas_agent.errors import Missing
from tests.engine.engine import Engine
from tests.engine.node import Node, running_node
from tests.engine.proxy import Proxy
from tests.engine.registry import Registry
from tests.engine.test_rollouts_docker import box
from tests.engine.test_scenarios_docker import container, containers
from tests.engine.wants import Make, only, using, want
from tests.waiting import eventually

pytestmark = pytest.mark.docker


@dataclass
class Tag:
    """A tag of the registry that is moved; ``first`` and ``second`` are the ids of what it names before and after."""

    engine: Engine
    registry: Registry
    name: str
    reference: str = ""
    first: str = ""
    second: str = ""

    def begin(self) -> None:
        """Push the first image."""
        self.reference = self.registry.push(self.name)
        self.first = self.pulled()
        self.engine.client.remove_image(self.reference)

    def move(self) -> None:
        """Push another one under the same name, and have it here under that name."""
        self.engine.client.tag(self.first, "boreas-test/kept", "1")
        self.registry.push(self.name, 'ENV WHICH="second"')
        self.second = self.pulled()
        assert self.first != self.second

    def pulled(self) -> str:
        """What the tag names in the registry now; it is here afterwards."""
        repository, _, tag = self.reference.rpartition(":")
        self.engine.client.pull(repository, tag)
        return str(self.engine.client.inspect_image(self.reference)["Id"])


@pytest.fixture
def tag(clean_engine: Engine, registry: Registry) -> Iterator[Tag]:
    made = Tag(clean_engine, registry, "moving:1")
    made.begin()
    yield made
    clean_engine.remove_containers()
    here = {image["Id"] for image in clean_engine.client.images()}
    for image in {made.first, made.second} & here:
        clean_engine.client.remove_image(image, force=True)


@pytest.fixture
def node(tag: Tag, tmp_path: Path) -> Iterator[Node]:
    with running_node(tmp_path / "node", tag.engine.socket) as started:
        yield started


def _images(engine: Engine) -> list[str]:
    return [one["ImageID"] for one in containers(engine, "web")]


def test_a_container_that_is_gone_and_another_replica_are_made_of_the_bytes_that_run(node: Node, tag: Tag) -> None:
    node.apply("web", "v1", **box(tag.engine, image=tag.reference))
    shown = node.reaches("web", "running")["image"]
    assert (shown["reference"], shown["id"]) == (tag.reference, tag.first)
    assert shown["digest"].startswith(f"{tag.registry.host}/moving@sha256:")
    tag.move()
    before = container(tag.engine, "web")
    tag.engine.client.remove_container(before, force=True)
    eventually(lambda: _images(tag.engine) == [tag.first] and container(tag.engine, "web") != before, 20)
    node.restart()
    node.apply("web", "v1", **box(tag.engine, image=tag.reference, replicas=2))
    eventually(lambda: _images(tag.engine) == [tag.first] * 2, 20)


def test_a_restart_keeps_the_bytes_and_an_apply_that_is_forced_or_new_looks_what_the_tag_names(node: Node, tag: Tag) -> None:
    node.apply("web", "v1", **box(tag.engine, image=tag.reference))
    node.reaches("web", "running")
    tag.move()
    assert node.request("POST", "/v1/apps/web/restart")[0] == 200
    node.reaches("web", "running", revision=2)
    assert _images(tag.engine) == [tag.first]
    node.apply("web", "v2", **box(tag.engine, image=tag.reference))
    node.reaches("web", "running", revision=3)
    assert _images(tag.engine) == [tag.second]


def test_a_rollback_by_hand_brings_the_bytes_back_though_they_are_not_here_any_more(node: Node, tag: Tag) -> None:
    node.apply("web", "v1", **box(tag.engine, image=tag.reference))
    node.reaches("web", "running")
    tag.move()
    node.apply("web", "v2", **box(tag.engine, image=tag.reference))
    node.reaches("web", "running", revision=2)
    eventually(lambda: _images(tag.engine) == [tag.second], 20)
    tag.engine.client.remove_image(tag.first, force=True)
    assert node.request("POST", "/v1/apps/web/rollback")[0] == 200
    node.reaches("web", "running", revision=3)
    assert _images(tag.engine) == [tag.first]
    ran = node.sql("SELECT revision, image FROM v_deployments WHERE app = 'web' ORDER BY id")
    assert ran == [(1, tag.first), (2, tag.second), (3, tag.first)]
    assert all(digest for (digest,) in node.sql("SELECT digest FROM v_deployments WHERE app = 'web'"))


def test_always_looks_at_every_deployment_and_at_no_other_start(node: Node, tag: Tag) -> None:
    spec = box(tag.engine, image=tag.reference, pull_policy="always")
    node.apply("web", "v1", **spec)
    node.reaches("web", "running")
    tag.engine.client.tag(tag.first, "boreas-test/kept", "1")
    tag.registry.push("moving:1", 'ENV WHICH="second"')
    before = container(tag.engine, "web")
    tag.engine.client.remove_container(before, force=True)
    eventually(lambda: containers(tag.engine, "web") and container(tag.engine, "web") != before, 20)
    node.reaches("web", "running")
    assert _images(tag.engine) == [tag.first]
    assert node.request("POST", "/v1/apps/web/restart")[0] == 200
    node.reaches("web", "running", revision=2)
    tag.second = tag.engine.client.inspect_image(tag.reference)["Id"]
    assert _images(tag.engine) == [tag.second]
    assert tag.second != tag.first


def test_never_pulls_nothing_and_says_so(tag: Tag, docker_driver_factory: Make) -> None:
    wanted = want(image=tag.reference, pull_policy="never")

    async def work(driver: DockerDriver) -> None:
        assert not await driver.prepared(wanted)
        with pytest.raises(Missing, match=rf"^cannot start web: image {tag.reference} is not here, and pull_policy is never; load it"):
            await driver.prepare(wanted)
        await asyncio.to_thread(tag.pulled)
        assert await driver.prepared(wanted)
        await driver.start(wanted, 0)
        assert (await only(driver)).image == tag.first

    using(docker_driver_factory, work)


def test_bytes_that_are_nowhere_any_more_are_not_replaced_by_others(tag: Tag, docker_driver_factory: Make) -> None:
    gone = f"{tag.registry.host}/moving@sha256:{'0' * 64}"
    wanted = replace(want(image=tag.reference), image="sha256:" + "0" * 64, digest=gone)

    async def work(driver: DockerDriver) -> None:
        await asyncio.to_thread(tag.pulled)
        assert not await driver.prepared(wanted)
        with pytest.raises(
            Missing, match=rf"^cannot pull {gone}: .*; it is what web ran; to run what {tag.reference} is now, apply it with "
        ):
            await driver.prepare(wanted)

    using(docker_driver_factory, work)


def test_a_long_pull_says_how_far_it_is(node: Node, clean_engine: Engine, registry: Registry) -> None:
    proxy = Proxy(("127.0.0.1", 0), ("127.0.0.1", registry.port))
    rule = proxy.stall("GET /v2/base/blobs", 900_000)
    image = f"127.0.0.1:{proxy.port}/base:1"
    try:
        node.apply("web", "v1", **box(clean_engine, image=image))

        def said() -> Any:
            msg = node.status("web")["healthy"]["msg"]
            return msg if "layers" in msg else None

        assert eventually(said, 20).startswith(f"fetching {image}: ")
        assert node.status("web")["healthy"]["level"] < 50
        proxy.release(rule)
        node.reaches("web", "running")
    finally:
        proxy.close()
        clean_engine.remove_containers()
        clean_engine.client.remove_image(image, force=True)
