"""What a container is asked to be reaches the engine, and its networks come and go with those who use them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from boreas_agent.drivers.docker import DockerDriver
from boreas_agent.errors import Missing, Transient
from boreas_agent.model import Phase
from tests.engine.engine import SERVE, Engine
from tests.engine.wants import Make, only, shell, using, want
from tests.ports import free_port
from tests.waiting import eventually_async

pytestmark = pytest.mark.docker


@pytest.fixture
def bare_engine(clean_engine: Engine) -> Iterator[Engine]:
    """The engine, without networks or volumes of the test afterwards."""
    yield clean_engine
    clean_engine.remove_containers()
    for network in clean_engine.client.networks():
        if network["Name"] not in {"bridge", "host", "none"}:
            clean_engine.client.remove_network(network["Id"])
    for volume in clean_engine.client.volumes()["Volumes"] or ():
        clean_engine.client.remove_volume(volume["Name"])


def _networks(engine: Engine) -> dict[str, dict[str, Any]]:
    return {network["Name"]: network for network in engine.client.networks()}


def test_everything_at_once_is_what_the_engine_shows(bare_engine: Engine, docker_driver_factory: Make) -> None:
    bare_engine.client.create_network("there")
    port = free_port()
    wanted = want(
        networks=[{"name": "back", "aliases": ["db"], "create": True}, "there"],
        hostname="web-1",
        extra_hosts={"other": "10.9.9.9"},
        dns=["192.0.2.53"],
        cap_add=["NET_ADMIN"],
        cap_drop=["CHOWN"],
        init=True,
        read_only=True,
        tmpfs={"/tmp": "size=1m"},
        shm_size="8m",
        ulimits={"nofile": {"soft": 64, "hard": 128}},
        devices=["/dev/null:/dev/nothing:r"],
        labels={"team": "a"},
        volumes=[{"name": "data", "container_path": "/data"}],
        ports=[{"host": port, "container": 80, "host_ip": "127.0.0.1"}],
    )

    async def work(driver: DockerDriver) -> str:
        await driver.prepare(wanted)
        await driver.start(wanted, 0)
        seen = await only(driver)
        assert (seen.phase, seen.hash) == (Phase.RUNNING, wanted.hash)
        assert seen.address
        return seen.ref

    found = bare_engine.client.inspect_container(using(docker_driver_factory, work))
    host, config, networks = found["HostConfig"], found["Config"], found["NetworkSettings"]["Networks"]
    assert set(networks) == {"back", "there"}
    assert {"web", "db"} <= set(networks["back"]["Aliases"])
    assert "web" in networks["there"]["Aliases"]
    assert (config["Hostname"], config["Labels"]["team"]) == ("web-1", "a")
    assert config["Labels"]["boreas.app"] == "web"
    assert (host["ExtraHosts"], host["Dns"]) == (["other:10.9.9.9"], ["192.0.2.53"])
    assert [name.removeprefix("CAP_") for name in (*host["CapAdd"], *host["CapDrop"])] == ["NET_ADMIN", "CHOWN"]
    assert (host["Init"], host["ReadonlyRootfs"], host["Privileged"]) == (True, True, False)
    assert (host["Tmpfs"], host["ShmSize"]) == ({"/tmp": "size=1m"}, 8 * 2**20)
    assert host["Ulimits"] == [{"Name": "nofile", "Soft": 64, "Hard": 128}]
    assert host["Devices"] == [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/nothing", "CgroupPermissions": "r"}]
    assert found["Mounts"][0]["Name"] == "data"
    assert found["NetworkSettings"]["Ports"]["80/tcp"] == [{"HostIp": "127.0.0.1", "HostPort": str(port)}]


def test_the_app_sees_what_was_asked_for(bare_engine: Engine, docker_driver_factory: Make) -> None:
    script = "hostname; ulimit -n; grep other /etc/hosts; touch /x 2>/dev/null || echo read-only; touch /tmp/x && echo writable; echo $$"
    wanted = shell(
        script,
        hostname="web-1",
        extra_hosts=["other:10.9.9.9"],
        read_only=True,
        tmpfs="/tmp",
        init=True,
        ulimits={"nofile": 64},
    )

    async def work(driver: DockerDriver) -> list[str]:
        await driver.start(wanted, 0)
        ref = (await only(driver)).ref

        async def said() -> list[str]:
            lines: list[str] = (await asyncio.to_thread(bare_engine.client.logs, ref)).decode().split()
            return lines if len(lines) >= 7 else []

        return await eventually_async(said, 20)

    *rest, pid = using(docker_driver_factory, work)
    assert rest == ["web-1", "64", "10.9.9.9", "other", "read-only", "writable"]
    assert pid != "1"


def test_a_network_that_was_made_goes_with_its_last_user_and_one_that_was_there_stays(
    bare_engine: Engine, docker_driver_factory: Make
) -> None:
    bare_engine.client.create_network("theirs")
    networks = [{"name": name, "create": True} for name in ("ours", "theirs")]

    async def work(driver: DockerDriver) -> None:
        for app in ("one", "two"):
            await driver.prepare(want(app, networks=networks))
            await driver.start(want(app, networks=networks), 0)
        for app in ("one", "two"):
            assert "ours" in await asyncio.to_thread(_networks, bare_engine)
            seen = await only(driver, app)
            await driver.stop(seen, "SIGKILL", 0)
            await driver.remove(seen)

    using(docker_driver_factory, work)
    assert set(_networks(bare_engine)) == {"bridge", "host", "none", "theirs"}


def test_a_stopped_container_keeps_its_network(bare_engine: Engine, docker_driver_factory: Make) -> None:
    networks = [{"name": "ours", "create": True}]

    async def work(driver: DockerDriver) -> None:
        await driver.start(want("one", networks=networks), 0)
        await driver.start(want("two", networks=networks), 0)
        await driver.stop(await only(driver, "one"), "SIGKILL", 0)
        two = await only(driver, "two")
        await driver.stop(two, "SIGKILL", 0)
        await driver.remove(two)
        assert "ours" in await asyncio.to_thread(_networks, bare_engine)
        await driver.start(want("one", networks=networks), 0)
        assert (await only(driver, "one")).phase is Phase.RUNNING

    using(docker_driver_factory, work)


def test_a_network_that_nobody_made_is_asked_for_before_anything_is_stopped(bare_engine: Engine, docker_driver_factory: Make) -> None:
    wanted = want(networks=["back"])

    async def work(driver: DockerDriver) -> None:
        assert not await driver.prepared(wanted)
        with pytest.raises(Missing, match=r'^cannot start web: there is no network back; make it with "docker network create back", or '):
            await driver.prepare(wanted)
        with pytest.raises(Missing, match=r"^cannot start web: there is no network back"):
            await driver.start(wanted, 0)
        await asyncio.to_thread(bare_engine.client.create_network, "back")
        assert await driver.prepared(wanted)
        await driver.start(wanted, 0)

    using(docker_driver_factory, work)


def test_a_container_whose_network_was_made_anew_is_made_anew_too(bare_engine: Engine, docker_driver_factory: Make) -> None:
    wanted = want(networks=[{"name": "back", "create": True}])

    async def work(driver: DockerDriver) -> None:
        await driver.start(wanted, 0)
        await driver.stop(await only(driver), "SIGKILL", 0)
        await asyncio.to_thread(bare_engine.client.remove_network, "back")
        with pytest.raises(Transient, match=r"^cannot start web: .*network.*; its container is made anew$"):
            await driver.start(wanted, 0)
        await driver.start(wanted, 0)
        assert (await only(driver)).phase is Phase.RUNNING

    using(docker_driver_factory, work)


def test_whoever_was_cut_short_before_the_second_network_is_made_whole(bare_engine: Engine, docker_driver_factory: Make) -> None:
    wanted = want(networks=["one", "two"])
    for name in ("one", "two"):
        bare_engine.client.create_network(name)

    async def work(driver: DockerDriver) -> str:
        await driver.start(wanted, 0)
        ref = (await only(driver)).ref
        await driver.stop(await only(driver), "SIGKILL", 0)
        await asyncio.to_thread(bare_engine.client.disconnect_container_from_network, ref, "two")
        await driver.start(wanted, 0)
        return ref

    found = bare_engine.client.inspect_container(using(docker_driver_factory, work))
    assert set(found["NetworkSettings"]["Networks"]) == {"one", "two"}


def test_a_named_volume_outlives_its_container(bare_engine: Engine, docker_driver_factory: Make) -> None:
    wanted = shell("cat /data/x || echo kept > /data/x", volumes=[{"name": "data", "container_path": "/data"}])

    async def work(driver: DockerDriver) -> None:
        await driver.start(wanted, 0)
        seen = await only(driver)
        await driver.stop(seen, "SIGKILL", 5)
        await driver.remove(seen)

    using(docker_driver_factory, work)
    assert [volume["Name"] for volume in bare_engine.client.volumes()["Volumes"]] == ["data"]


def test_ports_of_a_range_are_published_and_the_one_that_is_taken_is_named(bare_engine: Engine, docker_driver_factory: Make) -> None:
    first = 29_300
    wanted = want(ports=[{"host": f"{first}-{first + 2}", "container": "80-82", "host_ip": "127.0.0.1"}])
    taken = {"80/tcp": [{"HostPort": str(first + 1), "HostIp": "127.0.0.1"}]}
    other = bare_engine.run("other", SERVE, HostConfig={"PortBindings": taken}, ExposedPorts={"80/tcp": {}})

    async def work(driver: DockerDriver) -> None:
        with pytest.raises(Transient, match=rf"^cannot start web: host port {first + 1}/tcp is taken by other \(container {other[:12]}\)$"):
            await driver.start(wanted, 0)
        await asyncio.to_thread(bare_engine.client.remove_container, other, force=True)
        await driver.start(wanted, 0)
        found = await asyncio.to_thread(bare_engine.client.inspect_container, (await only(driver)).ref)
        ports = found["NetworkSettings"]["Ports"]
        assert {port: bound[0]["HostPort"] for port, bound in ports.items()} == {f"{80 + n}/tcp": str(first + n) for n in range(3)}

    using(docker_driver_factory, work)


def test_a_container_may_live_in_the_network_of_another(bare_engine: Engine, docker_driver_factory: Make) -> None:
    async def work(driver: DockerDriver) -> None:
        with pytest.raises(Transient, match=r"^cannot (create|start) web: .*No such container: storage"):
            await driver.start(want(network_mode="container:storage"), 0)
        await asyncio.to_thread(bare_engine.run, "storage")
        await driver.start(want(network_mode="container:storage"), 0)
        assert (await only(driver)).phase is Phase.RUNNING

    using(docker_driver_factory, work)
