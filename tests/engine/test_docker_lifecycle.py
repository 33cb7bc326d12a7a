"""What one container goes through, against a real engine."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from boreas_agent import records
from boreas_agent.clock import SystemClock
from boreas_agent.drivers.docker import DockerDriver
from boreas_agent.drivers.docker_spec import container_name
from boreas_agent.errors import Terminal, Transient
from boreas_agent.model import Exit, Instance, Observed, Phase
from tests.engine.engine import Engine
from tests.engine.wants import Make, only, seen_in, shell, using, want
from tests.ports import free_port
from tests.waiting import eventually

pytestmark = pytest.mark.docker


def test_a_started_instance_is_seen_running_with_all_that_it_was_made_from(docker_driver_factory: Make) -> None:
    wanted = want("my-app", revision=7, replica=2, replicas=3)

    async def work(driver: DockerDriver) -> tuple[Observed, dict[str, object]]:
        await driver.start(wanted, 0)
        return await only(driver, "my-app"), dict(await driver.observe_all())

    seen, everything = using(docker_driver_factory, work)
    assert (seen.name, seen.kind, seen.version, seen.hash, seen.phase) == (wanted.name, "docker", "v7", wanted.hash, Phase.RUNNING)
    assert not seen.misnamed
    assert seen.run == 0
    assert seen.exits == ()
    assert records.instances(records.decode(seen.record), [2]) == {2: wanted}
    assert everything == {"my-app": (seen,)}


def test_the_start_of_a_run_is_known_in_boot_seconds(docker_driver_factory: Make) -> None:
    async def work(driver: DockerDriver) -> tuple[float, Observed, float]:
        before = SystemClock().boottime()
        await driver.start(want(), 0)
        return before, await only(driver), SystemClock().boottime()

    before, seen, after = using(docker_driver_factory, work)
    again = using(docker_driver_factory, only)
    assert seen.started is not None
    assert before - 0.02 <= seen.started <= after
    assert again.started == seen.started  # another agent, later, sees the same


def test_starting_what_runs_changes_nothing(docker_driver_factory: Make) -> None:
    async def work(driver: DockerDriver) -> tuple[Observed, Observed]:
        await driver.start(want(), 0)
        first = await only(driver)
        await driver.start(want(), 0)
        return first, await only(driver)

    first, second = using(docker_driver_factory, work)
    assert second == first


def test_an_exited_container_is_started_again_under_the_same_id(docker_driver_factory: Make) -> None:
    async def work(driver: DockerDriver) -> tuple[Observed, Observed]:
        await driver.start(shell("exit 3"), 0)
        first = await seen_in(driver, Phase.EXITED)
        await driver.start(shell("exit 3"), 0)
        return first, await seen_in(driver, Phase.EXITED)

    first, second = using(docker_driver_factory, work)
    assert first.ref == second.ref
    assert first.last_exit is not None
    assert second.last_exit is not None
    assert first.last_exit.code == 3
    assert first.last_exit.signal is None
    assert first.last_exit.run != second.last_exit.run


def test_one_end_of_a_run_has_one_name_whoever_looks(docker_driver_factory: Make) -> None:
    async def work(driver: DockerDriver) -> Exit | None:
        await driver.start(shell("exit 0"), 0)
        return (await seen_in(driver, Phase.EXITED)).last_exit

    first = using(docker_driver_factory, work)
    second = using(docker_driver_factory, only).last_exit
    assert first is not None
    assert second is not None
    assert first.ok
    assert (first.run, first.exited_at, first.started_at) == (second.run, second.exited_at, second.started_at)
    assert first.seconds is not None
    assert 0 <= first.seconds < 10


def test_a_kill_is_told_by_its_signal(docker_driver_factory: Make, engine: Engine) -> None:
    async def work(driver: DockerDriver) -> Exit | None:
        await driver.start(want(), 0)
        engine.client.kill((await only(driver)).ref)
        return (await seen_in(driver, Phase.EXITED)).last_exit

    end = using(docker_driver_factory, work)
    assert end is not None
    assert (end.code, end.signal, end.oom_killed) == (137, "SIGKILL", False)


def test_stop_asks_first_and_reports_how_it_ended(docker_driver_factory: Make) -> None:
    async def work(driver: DockerDriver) -> tuple[Exit | None, Observed]:
        await driver.start(want(), 0)
        end = await driver.stop(await only(driver), "SIGTERM", 30)
        return end, await only(driver)

    end, seen = using(docker_driver_factory, work)
    assert end is not None
    assert end.code == 0
    assert seen.phase is Phase.EXITED
    assert seen.last_exit == end


def test_the_signal_of_the_stop_policy_is_the_one_that_is_sent(docker_driver_factory: Make) -> None:
    wanted = shell("trap 'exit 42' USR1; while :; do sleep 0.1; done")

    async def work(driver: DockerDriver) -> Exit | None:
        await driver.start(wanted, 0)
        return await driver.stop(await only(driver), "SIGUSR1", 30)

    end = using(docker_driver_factory, work)
    assert end is not None
    assert end.code == 42


def test_what_ignores_the_signal_is_killed_after_its_grace(docker_driver_factory: Make) -> None:
    wanted = shell("trap '' TERM; while :; do sleep 1; done")

    async def work(driver: DockerDriver) -> tuple[Exit | None, float]:
        await driver.start(wanted, 0)
        seen, began = await only(driver), time.monotonic()
        return await driver.stop(seen, "SIGTERM", 0.5), time.monotonic() - began

    end, seconds = using(docker_driver_factory, work)
    assert end is not None
    assert end.signal == "SIGKILL"
    assert 0.5 <= seconds < 10


def test_without_grace_it_is_killed_at_once(docker_driver_factory: Make) -> None:
    async def work(driver: DockerDriver) -> Exit | None:
        await driver.start(want(), 0)
        return await driver.stop(await only(driver), "SIGTERM", 0)

    end = using(docker_driver_factory, work)
    assert end is not None
    assert end.signal == "SIGKILL"


def test_a_paused_container_is_seen_resumed_and_can_be_stopped(docker_driver_factory: Make, engine: Engine) -> None:
    async def work(driver: DockerDriver) -> tuple[Phase, Phase, Exit | None]:
        await driver.start(want(), 0)
        seen = await only(driver)
        engine.client.pause(seen.ref)
        paused = await only(driver)
        await driver.resume(paused)
        await driver.resume(paused)  # repeats safely
        resumed = await only(driver)
        engine.client.pause(seen.ref)
        return paused.phase, resumed.phase, await driver.stop(seen, "SIGTERM", 30)

    paused, resumed, end = using(docker_driver_factory, work)
    assert (paused, resumed) == (Phase.PAUSED, Phase.RUNNING)
    assert end is not None
    assert end.code == 0  # it had its chance to handle the signal


def test_stopping_and_removing_what_is_gone_is_success(docker_driver_factory: Make) -> None:
    async def work(driver: DockerDriver) -> tuple[Exit | None, Exit | None, int]:
        await driver.start(want(), 0)
        seen = await only(driver)
        first = await driver.stop(seen, "SIGTERM", 30)
        again = await driver.stop(seen, "SIGTERM", 30)
        assert first == again
        await driver.remove(seen)
        await driver.remove(seen)
        return again, await driver.stop(seen, "SIGTERM", 30), len(await driver.observe("web"))

    stopped, gone, left = using(docker_driver_factory, work)
    assert stopped is not None
    assert gone is None
    assert left == 0


def _output_of(engine: Engine, make: Make, wanted: Instance) -> list[str]:
    async def work(driver: DockerDriver) -> str:
        await driver.start(wanted, 0)
        return (await seen_in(driver, Phase.EXITED, wanted.name.app)).ref

    output: bytes = engine.client.logs(using(make, work))
    return output.decode().splitlines()


def test_command_and_args_replace_entrypoint_and_cmd_as_the_contract_says(engine: Engine, docker_driver_factory: Make) -> None:
    def output(app: str, **pkg: Any) -> str:
        wanted = want(app, image=engine.entry_image, **{"command": [], **pkg})
        return " ".join(_output_of(engine, docker_driver_factory, wanted))

    assert output("neither") == "entrypoint cmd"
    assert output("args", args=["mine"]) == "entrypoint mine"
    assert output("command", command=["/bin/echo", "own"]) == "own"
    assert output("both", command=["/bin/echo", "own"], args=["a b", "$c"]) == "own a b $c"


def test_environment_user_and_working_dir_arrive_verbatim(engine: Engine, docker_driver_factory: Make) -> None:
    environment = {"EMPTY": "", "EQUALS": "a=b", "QUOTED": "'x' \"y\" $z", "discovery.type": "single-node"}
    seen = _output_of(engine, docker_driver_factory, want("one", command=["/bin/env"], environment=environment))
    assert {f"{name}={value}" for name, value in environment.items()} <= set(seen)
    assert _output_of(engine, docker_driver_factory, shell("id -u; pwd", "two", user="1000:1000", working_dir="/tmp")) == ["1000", "/tmp"]


def test_volumes_are_mounted_and_missing_host_folders_made(engine: Engine, docker_driver_factory: Make, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "file").write_text("hello")
    volumes = [
        {"host_path": str(tmp_path / "in"), "container_path": "/in", "read_only": True},
        {"host_path": str(tmp_path / "made" / "here"), "container_path": "/out"},
    ]
    output = _output_of(engine, docker_driver_factory, shell("cp /in/file /out/copy; touch /in/no || echo read-only", volumes=volumes))
    assert "read-only" in output
    assert (tmp_path / "made" / "here" / "copy").read_text() == "hello"


def test_published_ports_answer(docker_driver_factory: Make) -> None:
    port = free_port()
    wanted = shell("trap 'exit 0' TERM; while :; do echo hello | nc -l -p 80; done", ports=[{"host_port": port, "container_port": 80}])

    def answer() -> bool:
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as connection:
                connection.settimeout(1)
                return connection.recv(100) == b"hello\n"
        except OSError:
            return False

    async def work(driver: DockerDriver) -> None:
        await driver.start(wanted, 0)

    using(docker_driver_factory, work)
    assert eventually(answer)


def test_a_container_is_made_with_bounded_logs_without_restart_policy_and_in_the_configured_network(
    clean_engine: Engine, docker_driver_factory: Make
) -> None:
    driver = DockerDriver(clean_engine.socket, "a-node-of-its-own", SystemClock(), network_mode="none")
    wanted = want(stop={"signal": "SIGINT", "grace_seconds": 2.5})

    async def work(driver: DockerDriver) -> str:
        await driver.start(wanted, 0)
        return (await only(driver)).ref

    made = clean_engine.client.inspect_container(using(lambda: driver, work))
    assert made["Name"] == "/" + container_name(wanted.name, "a-node-of-its-own")
    assert made["HostConfig"]["NetworkMode"] == "none"
    assert made["HostConfig"]["RestartPolicy"]["Name"] in ("no", "")
    assert made["HostConfig"]["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "10485760", "max-file": "3"}}
    assert (made["Config"]["StopSignal"], made["Config"]["StopTimeout"]) == ("SIGINT", 3)
    assert json.loads(made["Config"]["Labels"]["boreas.record"])["app"] == "web"


def test_a_port_held_by_a_process_is_named_with_its_holder(docker_driver_factory: Make) -> None:
    with socket.socket() as holder:
        holder.bind(("0.0.0.0", 0))
        holder.listen()
        port = holder.getsockname()[1]
        wanted = want(ports=[{"host_port": port, "container_port": 80}])

        async def work(driver: DockerDriver) -> Observed:
            with pytest.raises(Transient, match=rf"^cannot start web: host port {port}/tcp is taken by \S+ \(pid \d+\)$"):
                await driver.start(wanted, 0)
            return await only(driver)

        left = using(docker_driver_factory, work)
    assert left.phase is Phase.CREATED

    async def retry(driver: DockerDriver) -> Observed:
        await driver.start(wanted, 0)
        return await only(driver)

    healed = using(docker_driver_factory, retry)
    assert (healed.phase, healed.ref) == (Phase.RUNNING, left.ref)


def test_a_port_held_by_another_container_is_named_with_its_holder(clean_engine: Engine, docker_driver_factory: Make) -> None:
    port = free_port()
    clean_engine.run("neighbour", ExposedPorts={"80/tcp": {}}, HostConfig={"PortBindings": {"80/tcp": [{"HostPort": str(port)}]}})

    async def work(driver: DockerDriver) -> None:
        with pytest.raises(Transient, match=rf"host port {port}/tcp is taken by neighbour \(container "):
            await driver.start(want(ports=[{"host_port": port, "container_port": 80}]), 0)

    using(docker_driver_factory, work)


def test_a_program_that_does_not_exist_fails_the_start_with_the_reason(docker_driver_factory: Make) -> None:
    async def work(driver: DockerDriver) -> None:
        with pytest.raises(Terminal, match=r"^cannot start web: .*/no/such/program"):
            await driver.start(want(command=["/no/such/program"]), 0)
        assert (await only(driver)).phase is Phase.CREATED

    using(docker_driver_factory, work)


def test_an_out_of_memory_kill_is_told_from_another(engine: Engine, docker_driver_factory: Make) -> None:
    async def work(driver: DockerDriver) -> Exit | None:
        await driver.start(shell("sleep 0.2; exec tail /dev/zero"), 0)
        engine.client.update_container((await only(driver)).ref, mem_limit="8m", memswap_limit="8m")
        return (await seen_in(driver, Phase.EXITED)).last_exit

    end = using(docker_driver_factory, work)
    assert end is not None
    assert (end.code, end.signal, end.oom_killed) == (137, "SIGKILL", True)


def test_a_container_over_its_memory_limit_is_killed_and_that_is_told(docker_driver_factory: Make) -> None:
    async def work(driver: DockerDriver) -> Observed:
        await driver.start(shell("tail /dev/zero", resources={"memory_limit": "16Mi"}), 0)
        return await seen_in(driver, Phase.EXITED)

    killed = using(docker_driver_factory, work).last_exit
    assert killed is not None
    assert killed.oom_killed
    assert str(killed) == "killed by SIGKILL (out of memory)"


def test_a_container_reads_its_environment_from_files_when_it_is_created(docker_driver_factory: Make, tmp_path: Path) -> None:
    file = tmp_path / "app.env"
    file.write_text("TOKEN=from the file\n")

    async def work(driver: DockerDriver) -> Observed:
        await driver.start(shell('test "$TOKEN" = "from the file"', environment_from=[str(file)]), 0)
        return await seen_in(driver, Phase.EXITED)

    ended = using(docker_driver_factory, work).last_exit
    assert ended is not None
    assert ended.code == 0
