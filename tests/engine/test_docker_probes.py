"""Probes of real containers by a real agent, and commands beside them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from boreas_agent.clock import SystemClock
from boreas_agent.drivers.docker import DockerDriver
from boreas_agent.errors import Unavailable
from boreas_agent.model import Executed
from tests.engine.engine import Engine
from tests.engine.node import Node, processes_with, running_node
from tests.engine.proxy import Proxy
from tests.engine.wants import Make, only, opened, using, want
from tests.waiting import eventually

pytestmark = pytest.mark.docker
QUICK = {"rollout": {"min_healthy_seconds": 0.2}, "stop": {"grace_seconds": 0.2}, "restart": {"initial_delay_seconds": 0.1}}
OFTEN = {"interval_seconds": 0.2, "failure_threshold": 3, "timeout_seconds": 2}
CHECKED = "boreas-test/checked:1"
PAGES = "mkdir /tmp/www; echo fine > /tmp/www/healthz; exec httpd -f -p 8080 -h /tmp/www"


@pytest.fixture
def node(clean_engine: Engine, tmp_path: Path) -> Iterator[Node]:
    with running_node(tmp_path / "node", clean_engine.socket) as started:
        yield started


def container(engine: Engine, app: str = "web") -> dict[str, Any]:
    (one,) = engine.client.containers(all=True, filters={"label": f"boreas.app={app}"})
    return dict(engine.client.inspect_container(one["Id"]))


def inside(engine: Engine, line: str) -> None:
    """Somebody does something in the container."""
    made = engine.client.exec_create(container(engine)["Id"], ["/bin/sh", "-c", line])
    engine.client.exec_start(made["Id"])


def level(node: Node, at: int, words: str = "") -> None:
    def there() -> bool:
        healthy = node.status("web")["healthy"]
        return healthy["level"] == at and words in healthy["msg"]

    try:
        eventually(there, 40)
    except AssertionError:
        raise AssertionError(f"web did not reach {at} {words!r}: {node.status('web')} {node.events('web')[-8:]}") from None


def test_a_container_is_asked_on_its_own_port_which_nobody_published(node: Node, clean_engine: Engine) -> None:
    http = {"http": {"port": 8080, "path": "/healthz"}, **OFTEN}
    live = {"exec": {"command": ["/bin/sh", "-c", "test ! -e /tmp/dead || { echo is dead; exit 7; }"]}, **OFTEN}
    health = {"startup": {"tcp": {"port": 8080}, **OFTEN, "failure_threshold": 100}, "readiness": http, "liveness": live}
    node.apply("web", type="docker", image=clean_engine.image, command=["/bin/sh", "-c", PAGES], **QUICK, health=health)
    level(node, 100)
    first = container(clean_engine)
    assert first["HostConfig"]["PortBindings"] in ({}, None)
    inside(clean_engine, "rm /tmp/www/healthz")
    level(node, 0, "not ready: readiness probe failed 3 times: HTTP 404 from :8080/healthz")
    inside(clean_engine, "echo fine > /tmp/www/healthz")
    level(node, 100)
    inside(clean_engine, "rm -r /tmp/www; touch /tmp/dead")
    eventually(lambda: node.exits("web"), 30)
    reason = node.exits("web")[0][3]
    assert reason == "stopped: liveness probe failed 3 times: the command exited with code 7: is dead"
    eventually(lambda: container(clean_engine)["State"]["StartedAt"] != first["State"]["StartedAt"], 20)
    assert container(clean_engine)["Id"] == first["Id"], "restarted in place"


def test_the_images_own_health_check_counts_as_readiness(node: Node, clean_engine: Engine) -> None:
    clean_engine.make_image(
        CHECKED, 'HEALTHCHECK --interval=200ms --timeout=5s --retries=1 CMD ["/bin/busybox", "test", "-e", "/tmp/well"]'
    )
    node.apply("web", type="docker", image=CHECKED, command=["/bin/sleep", "3600"], **QUICK)
    level(node, 25, "not ready: the image's health check fails")
    inside(clean_engine, "touch /tmp/well")
    level(node, 100)
    asked = clean_engine.client.inspect_container(container(clean_engine)["Id"])["ExecIDs"] or []
    assert len(asked) <= 1, "nobody but the engine asks"
    node.kill()
    node.start()
    assert node.status("web")["healthy"]["level"] == 100
    inside(clean_engine, "rm /tmp/well")
    level(node, 0, "not ready: the image's health check fails")


def test_an_engine_that_does_not_answer_makes_no_probe_fail(docker_proxy: Proxy, clean_engine: Engine, tmp_path: Path) -> None:
    with running_node(tmp_path / "node", docker_proxy.socket) as node:
        live = {"exec": {"command": ["/bin/true"]}, "interval_seconds": 0.2, "failure_threshold": 1}
        node.apply("web", type="docker", image=clean_engine.image, command=["/bin/sleep", "3600"], **QUICK, health={"liveness": live})
        level(node, 100)
        rule = docker_proxy.fail("/exec", 500, "context canceled", times=10)
        eventually(lambda: rule.hits >= 10, 30)
        level(node, 100)
        assert node.exits("web") == []


# --- the driver ----------------------------------------------------------------------------------


def test_a_command_sees_what_the_container_sees(docker_driver_factory: Make) -> None:
    async def work(driver: DockerDriver) -> Executed:
        await driver.start(want(environment={"AB": "c d"}, user="app", working_dir="/tmp"), 0)
        return await driver.execute(await only(driver), ["/bin/sh", "-c", "env; id -u; pwd; read x; echo $?"], 20)

    executed = using(docker_driver_factory, work)
    assert executed.code == 0
    assert {"AB=c d", "1000", "/tmp", "1"} <= set(executed.output.splitlines())


def test_one_that_hangs_is_killed_with_what_it_started_and_the_container_lives(docker_driver_factory: Make) -> None:
    mark = "docker-exec-that-hangs"

    async def work(driver: DockerDriver) -> Executed:
        await driver.start(want(), 0)
        seen = await only(driver)
        executed = await driver.execute(seen, ["/bin/sh", "-c", f"echo before; sh -c 'sleep 1000; : {mark}' & sleep 1000; : {mark}"], 0.5)
        assert (await only(driver)).life == seen.life
        return executed

    assert using(docker_driver_factory, work) == Executed(None, "before\n", "the command did not end within 0.5 s")
    eventually(lambda: not processes_with(mark))


def test_one_that_closes_its_output_is_waited_for_and_killed_too(docker_driver_factory: Make) -> None:
    async def work(driver: DockerDriver) -> tuple[Executed, Executed]:
        await driver.start(want(), 0)
        seen = await only(driver)
        ends = await driver.execute(seen, ["/bin/sh", "-c", "exec >&- 2>&-; sleep 1.5; exit 3"], 20)
        hangs = await driver.execute(seen, ["/bin/sh", "-c", "exec >&- 2>&-; sleep 1000; : docker-exec-closed"], 1)
        return ends, hangs

    ends, hangs = using(docker_driver_factory, work)
    assert ends.code == 3
    assert hangs.problem == "the command did not end within 1 s"
    eventually(lambda: not processes_with("docker-exec-closed"))


def test_what_cannot_be_executed_has_failed_what_is_gone_has_not(docker_driver_factory: Make, clean_engine: Engine) -> None:
    async def work(driver: DockerDriver) -> Executed:
        await driver.start(want(), 0)
        seen = await only(driver)
        executed = await driver.execute(seen, ["/no/such/program"], 20)
        clean_engine.client.remove_container(seen.ref, force=True)
        with pytest.raises(Unavailable):
            await driver.execute(seen, ["/bin/true"], 20)
        return executed

    executed = using(docker_driver_factory, work)
    assert executed.code not in (0, None) or "/no/such/program" in executed.problem


def test_of_much_output_the_end_is_kept(docker_driver_factory: Make) -> None:
    async def work(driver: DockerDriver) -> Executed:
        await driver.start(want(), 0)
        return await driver.execute(await only(driver), ["/bin/sh", "-c", "seq 1 50000; echo end >&2; exit 3"], 20)

    executed = using(docker_driver_factory, work)
    assert executed.code == 3
    assert executed.output.endswith("end\n")
    assert len(executed.output) <= 4096


@pytest.mark.parametrize(("mode", "address"), [("host", "127.0.0.1"), ("none", "")])
def test_where_a_container_answers_depends_on_its_network(clean_engine: Engine, mode: str, address: str) -> None:
    async def work() -> str:
        async with opened(DockerDriver(clean_engine.socket, "an-identity", SystemClock(), network_mode=mode)) as driver:
            await driver.start(want(), 0)
            return (await only(driver)).address

    assert asyncio.run(work()) == address
