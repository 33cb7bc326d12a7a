"""Hooks as containers of their own: of the same make as an instance, never taken for one, and never left."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping
from typing import Any

import pytest

from boreas_agent.clock import SystemClock
from boreas_agent.drivers.docker import DockerDriver
from boreas_agent.drivers.docker_spec import Node, create_body, hook_body, hook_name
from boreas_agent.errors import Terminal
from boreas_agent.model import Executed, InstanceName
from boreas_agent.spec import DockerPkg
from tests.engine.engine import Engine
from tests.engine.wants import Make, only, using, want
from tests.ports import free_port
from tests.waiting import eventually_async

pytestmark = pytest.mark.docker
LONG = ["/bin/sleep", "3600"]


@pytest.fixture
def identity() -> str:
    return str(uuid.uuid4())


@pytest.fixture
def make(clean_engine: Engine, identity: str) -> Make:
    return lambda: DockerDriver(clean_engine.socket, identity, SystemClock())


def everything(engine: Engine) -> list[Mapping[str, Any]]:
    return list(engine.client.containers(all=True))


def leftover(engine: Engine, identity: str, app: str = "gone", name: str | None = None) -> str:
    """What an agent that died during a hook has left."""
    wanted = want(app)
    assert isinstance(wanted.pkg, DockerPkg)
    body = hook_body(create_body(wanted, wanted.pkg, Node(identity), wanted.pkg.image, bounded_log=True), LONG)
    ref = str(engine.client.create_container_from_config(body, name or hook_name(wanted.name, identity))["Id"])
    engine.client.start(ref)
    return ref


def test_a_hook_runs_as_its_instance_would_but_beside_it_and_without_its_ports(clean_engine: Engine, make: Make) -> None:
    wanted = want(ports=[{"host_port": free_port(), "container_port": 80}], environment={"A": "b"}, user="1:2", working_dir="/tmp")

    async def work(driver: DockerDriver) -> None:
        await driver.start(wanted, 0)
        before = await only(driver)
        executed = await driver.run_once(wanted, ["/bin/sh", "-c", "echo $A $(id -u):$(id -g) $PWD; exit 7"], 20)
        assert (executed.code, executed.output) == (7, "b 1:2 /tmp\n")
        assert await only(driver) == before
        assert [one["Id"] for one in everything(clean_engine)] == [before.ref]

    using(make, work)


def test_a_hook_that_is_given_up_or_cancelled_is_gone(clean_engine: Engine, make: Make) -> None:
    async def work(driver: DockerDriver) -> None:
        late = await driver.run_once(want(), ["/bin/sh", "-c", "echo begun; exec sleep 3600"], 0.5)
        assert late == Executed(None, "begun\n", "the command did not end within 0.5 s")
        assert everything(clean_engine) == []
        running = asyncio.ensure_future(driver.run_once(want(), LONG, 3600))
        await eventually_async(lambda: _running(clean_engine), 20)
        assert dict(await driver.observe_all()) == {}, "it is no instance, and looking at everything does not sweep it away"
        assert list(await driver.observe("web")) == []
        running.cancel()
        await asyncio.wait({running})
        assert everything(clean_engine) == []

    using(make, work)


async def _running(engine: Engine) -> bool:
    return any(one["State"] == "running" for one in await asyncio.to_thread(everything, engine))


def test_what_a_dead_agent_left_is_removed_and_what_is_anothers_or_a_copy_is_not(clean_engine: Engine, identity: str, make: Make) -> None:
    left = leftover(clean_engine, identity)
    others = {leftover(clean_engine, str(uuid.uuid4())), leftover(clean_engine, identity, "copied", "a-copy")}

    async def work(driver: DockerDriver) -> None:
        assert dict(await driver.observe_all()) == {}

        async def swept() -> bool:
            return left not in {one["Id"] for one in await asyncio.to_thread(everything, clean_engine)}

        await eventually_async(swept, 20)

    using(make, work)
    assert {one["Id"] for one in everything(clean_engine)} == others


def test_a_hook_that_is_run_again_takes_the_place_of_what_a_dead_agent_left(clean_engine: Engine, identity: str, make: Make) -> None:
    leftover(clean_engine, identity, "web")
    assert using(make, lambda driver: driver.run_once(want(), ["/bin/true"], 20)) == Executed(0, "")
    assert everything(clean_engine) == []


def test_a_foreign_container_under_the_name_of_a_hook_is_left_alone(clean_engine: Engine, identity: str, make: Make) -> None:
    name = hook_name(InstanceName("web", 1, 0), identity)
    clean_engine.client.create_container(clean_engine.image, LONG, name=name)
    with pytest.raises(Terminal, match="is taken by a container that is not ours"):
        using(make, lambda driver: driver.run_once(want(), ["/bin/true"], 20))
    assert [one["Names"] for one in everything(clean_engine)] == [[f"/{name}"]]


def test_a_program_that_is_not_there_is_a_problem_of_the_hook(clean_engine: Engine, make: Make) -> None:
    executed = using(make, lambda driver: driver.run_once(want(), ["/no/such/program"], 20))
    assert executed.code is None
    assert executed.problem.startswith("cannot execute the command: ")
    assert everything(clean_engine) == []
