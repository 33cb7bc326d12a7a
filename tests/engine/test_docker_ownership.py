"""What is ours is found and adopted, never doubled; what is not ours is never touched."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from boreas_agent.clock import SystemClock
from boreas_agent.drivers.docker import DockerDriver
from boreas_agent.drivers.docker_spec import Node, container_name, create_body, labels
from boreas_agent.errors import Terminal
from boreas_agent.model import Instance, Observed, Phase
from boreas_agent.spec import DockerPkg
from tests.engine.engine import SERVE, Engine
from tests.engine.wants import Make, only, using, want

pytestmark = pytest.mark.docker


@pytest.fixture
def identity() -> str:
    return str(uuid.uuid4())


@pytest.fixture
def make(clean_engine: Engine, identity: str) -> Make:
    return lambda: DockerDriver(clean_engine.socket, identity, SystemClock())


async def _started(driver: DockerDriver, wanted: Instance) -> Observed:
    await driver.start(wanted, 0)
    return await only(driver, wanted.name.app)


def _create(engine: Engine, wanted: Instance, identity: str, name: str) -> str:
    assert isinstance(wanted.pkg, DockerPkg)
    body = create_body(wanted, wanted.pkg, Node(identity), engine.image, bounded_log=True)
    return str(engine.client.create_container_from_config(body, name)["Id"])


def _state(engine: Engine, ref: str) -> dict[str, Any]:
    found = engine.client.inspect_container(ref)
    return {"state": found["State"]["Status"], "name": found["Name"], "started": found["State"]["StartedAt"]}


def test_a_container_whose_agent_died_before_starting_it_is_started_once(clean_engine: Engine, identity: str, make: Make) -> None:
    wanted = want()
    ref = _create(clean_engine, wanted, identity, container_name(wanted.name, identity))
    created = using(make, only)
    assert (created.phase, created.ref, created.exits) == (Phase.CREATED, ref, ())  # no crash of the app
    started = using(make, lambda driver: _started(driver, wanted))
    assert (started.phase, started.ref) == (Phase.RUNNING, ref)


def test_a_container_of_ours_made_from_something_else_is_replaced(make: Make) -> None:
    old = using(make, lambda driver: _started(driver, want(environment={"A": "1"})))
    new = using(make, lambda driver: _started(driver, want(environment={"A": "2"})))
    assert new.ref != old.ref
    assert new.phase is Phase.RUNNING


def test_a_foreign_container_under_our_name_is_refused_and_left_alone(clean_engine: Engine, identity: str, make: Make) -> None:
    wanted = want()
    ref = clean_engine.run(container_name(wanted.name, identity))
    before = _state(clean_engine, ref)

    async def work(driver: DockerDriver) -> int:
        with pytest.raises(Terminal, match=r"^cannot create web: the name web\.1\.0\.\w+ is taken by a container that is not ours"):
            await driver.start(wanted, 0)
        return len(await driver.observe_all())

    assert using(make, work) == 0
    assert _state(clean_engine, ref) == before


def test_containers_of_another_agent_on_this_node_are_neither_seen_nor_touched(clean_engine: Engine, identity: str, make: Make) -> None:
    other = str(uuid.uuid4())
    theirs = using(lambda: DockerDriver(clean_engine.socket, other, SystemClock()), lambda driver: _started(driver, want()))
    ours = using(make, lambda driver: _started(driver, want()))
    assert ours.ref != theirs.ref

    async def end(driver: DockerDriver) -> None:
        await driver.stop(ours, "SIGTERM", 0)
        await driver.remove(ours)

    using(make, end)
    assert _state(clean_engine, theirs.ref)["state"] == "running"


def test_a_container_with_our_label_but_without_sense_is_left_alone(clean_engine: Engine, identity: str, make: Make) -> None:
    wanted = want()
    nonsense = labels(wanted, identity) | {"boreas.revision": "seven"}
    ref = clean_engine.run(container_name(wanted.name, identity), Labels=nonsense)

    async def work(driver: DockerDriver) -> int:
        with pytest.raises(Terminal, match="not ours"):
            await driver.start(wanted, 0)
        return len(await driver.observe_all())

    assert using(make, work) == 0
    assert _state(clean_engine, ref)["state"] == "running"


def test_a_renamed_container_is_seen_as_misnamed_and_gets_its_name_back(clean_engine: Engine, identity: str, make: Make) -> None:
    async def work(driver: DockerDriver) -> tuple[Observed, Observed]:
        first = await _started(driver, want())
        clean_engine.client.rename(first.ref, "somebody-elses-idea")
        renamed = await only(driver)
        await driver.rename(renamed)
        await driver.rename(renamed)  # repeats safely
        return renamed, await only(driver)

    renamed, back = using(make, work)
    assert renamed.misnamed
    assert not back.misnamed
    assert back.ref == renamed.ref
    assert _state(clean_engine, back.ref)["name"] == "/" + container_name(want().name, identity)


def test_of_two_containers_of_one_instance_the_rightly_named_comes_first(clean_engine: Engine, identity: str, make: Make) -> None:
    async def work(driver: DockerDriver) -> list[Observed]:
        first = await _started(driver, want())
        clean_engine.client.rename(first.ref, "aside")
        await driver.start(want(), 0)
        return list(await driver.observe("web"))

    first, second = using(make, work)
    assert (first.misnamed, second.misnamed) == (False, True)
    assert first.name == second.name


def test_a_container_made_from_a_copy_of_ours_is_not_ours(clean_engine: Engine, make: Make) -> None:
    async def work(driver: DockerDriver) -> tuple[str, Observed]:
        ours = await _started(driver, want())
        copy = clean_engine.client.commit(ours.ref, repository="copied-out")["Id"]
        theirs = str(clean_engine.client.create_container(copy, name="an-experiment")["Id"])
        clean_engine.client.start(theirs)
        return theirs, await only(driver)

    try:
        theirs, seen = using(make, work)
        assert not seen.misnamed
        assert _state(clean_engine, theirs)["state"] == "running"
    finally:
        clean_engine.remove_containers()
        clean_engine.client.remove_image("copied-out")


def test_another_apps_container_renamed_onto_our_name_gets_its_own_name_back(clean_engine: Engine, identity: str, make: Make) -> None:
    async def work(driver: DockerDriver) -> tuple[Observed, Observed, Observed]:
        before = await _started(driver, want("database"))
        clean_engine.client.rename(before.ref, container_name(want("web").name, identity))
        web = await _started(driver, want("web"))
        return before, await only(driver, "database"), web

    before, database, web = using(make, work)
    assert (database.ref, database.phase, database.misnamed) == (before.ref, Phase.RUNNING, False)
    assert database.started == before.started
    assert web.phase is Phase.RUNNING


def test_an_image_of_the_user_with_our_labels_does_not_make_his_containers_ours(clean_engine: Engine, make: Make) -> None:
    clean_engine.run("his", SERVE, Labels={"boreas.app": "web", "boreas.agent": "another"})

    async def work(driver: DockerDriver) -> int:
        return len(await driver.observe_all())

    assert using(make, work) == 0
