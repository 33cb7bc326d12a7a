"""What a pkg becomes for the engine, and what the engine's answers become for the agent."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from boreas_agent.drivers.docker_spec import (
    Card,
    Node,
    container_name,
    create_body,
    hook_body,
    hook_name,
    image_reference,
    is_hook,
    labels,
    pull_query,
    read_card,
    registry_of,
)
from boreas_agent.drivers.docker_state import Facts, Now, Running, exit_of, facts, observed
from boreas_agent.model import Instance, InstanceName, Phase
from boreas_agent.spec import DockerPkg, parse_pkg

NODE = "0b1f7a9e-1111-4222-8333-444455556666"
WALL = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def _instance(**pkg: Any) -> tuple[Instance, DockerPkg]:
    parsed = parse_pkg({"type": "docker", "image": "nginx", **pkg})
    assert isinstance(parsed, DockerPkg)
    return Instance(InstanceName("my-app", 7, 2), "v1", "hash", parsed, "{}"), parsed


def _body(default_mode: str = "bridge", registry: str = "", **pkg: Any) -> dict[str, Any]:
    instance, parsed = _instance(**pkg)
    return create_body(instance, parsed, Node(NODE, default_mode), image_reference(parsed.image, registry), bounded_log=True)


def test_files_are_mounted_by_their_places_and_only_to_be_read() -> None:
    instance, pkg = _instance(files=[{"path": "/etc/a", "content": "s3cret"}, {"path": "/etc/b", "content_from": "/srv/b"}])
    body = create_body(instance, pkg, Node(NODE), "nginx:latest", bounded_log=True, files=Path("/work:dir/files"))
    assert body["HostConfig"]["Mounts"] == [
        {"Type": "bind", "Source": "/work:dir/files/0", "Target": "/etc/a", "ReadOnly": True},
        {"Type": "bind", "Source": "/work:dir/files/1", "Target": "/etc/b", "ReadOnly": True},
    ]
    assert hook_body(body, ["true"])["HostConfig"]["Mounts"] == body["HostConfig"]["Mounts"]
    assert "Mounts" not in _body()["HostConfig"]


@pytest.mark.parametrize(
    ("image", "registry", "expected"),
    [
        ("nginx", "", "nginx:latest"),
        ("nginx:1.27", "", "nginx:1.27"),
        ("team/app", "", "team/app:latest"),
        ("localhost:5000/app", "", "localhost:5000/app:latest"),
        ("app@sha256:" + "a" * 64, "", "app@sha256:" + "a" * 64),
        ("app:1@sha256:" + "a" * 64, "", "app:1@sha256:" + "a" * 64),
        ("nginx", "reg.example.com", "reg.example.com/nginx:latest"),
        ("team/app:2", "reg.example.com:5000/", "reg.example.com:5000/team/app:2"),
        ("docker.io/library/nginx", "reg.example.com", "docker.io/library/nginx:latest"),
        ("localhost/app", "reg.example.com", "localhost/app:latest"),
    ],
)
def test_a_reference_gets_tag_and_registry_only_where_it_has_none(image: str, registry: str, expected: str) -> None:
    assert image_reference(image, registry) == expected


def test_a_pull_asks_for_the_tag_or_for_the_digest() -> None:
    digest = "sha256:" + "a" * 64
    assert pull_query("localhost:5000/app:1") == {"fromImage": "localhost:5000/app", "tag": "1"}
    assert pull_query(f"app@{digest}") == {"fromImage": "app", "tag": digest}
    assert pull_query(f"localhost:5000/app:1@{digest}") == {"fromImage": "localhost:5000/app:1", "tag": digest}


def test_credentials_are_looked_up_under_the_registry_or_docker_hub() -> None:
    assert registry_of("localhost:5000/app:1") == "localhost:5000"
    assert registry_of("team/app:1") == "docker.io"
    assert registry_of("app:1") == "docker.io"


def test_a_container_can_be_recognised_by_its_labels_and_by_nothing_else() -> None:
    instance, _ = _instance()
    written = labels(instance, NODE)
    assert read_card(written, NODE) == Card(instance.name, "v1", "hash", "{}")
    assert read_card(written, "another") is None
    assert read_card(None, NODE) is None
    assert read_card({"boreas.agent": NODE}, NODE) is None
    assert read_card(written | {"boreas.replica": "x"}, NODE) is None
    assert container_name(instance.name, NODE) == "my-app.7.2.0b1f7a9e"


def test_what_is_not_given_is_left_to_the_image() -> None:
    body = _body()
    assert not {"Entrypoint", "Cmd", "WorkingDir", "User", "ExposedPorts"} & body.keys()
    assert body["Image"] == "nginx:latest"
    assert body["HostConfig"]["RestartPolicy"] == {"Name": "no"}
    assert body["HostConfig"]["LogConfig"]["Config"] == {"max-size": "10485760", "max-file": "3"}


def test_a_command_replaces_the_entrypoint_and_args_the_command() -> None:
    body = _body(command=["/bin/x", "-a"], args=["b"], working_dir="/w", user="1:2", environment={"A": "", "B": "c=d"})
    assert (body["Entrypoint"], body["Cmd"]) == (["/bin/x", "-a"], ["b"])
    assert (body["WorkingDir"], body["User"], body["Env"]) == ("/w", "1:2", ["A=", "B=c=d"])
    assert "Cmd" not in _body(command=["/bin/x"])


def test_ports_and_volumes_are_bound_as_docker_run_would() -> None:
    body = _body(
        ports=[
            {"host_port": 80, "container_port": 8080},
            {"host_port": 81, "container_port": 8080},
            {"host_port": 53, "container_port": 53, "protocol": "udp"},
        ],
        volumes=[{"host_path": "/a", "container_path": "/b"}, {"host_path": "/c", "container_path": "/d", "read_only": True}],
        stop={"signal": "INT", "grace_seconds": 0.5},
    )
    host = body["HostConfig"]
    assert body["ExposedPorts"] == {"8080/tcp": {}, "53/udp": {}}
    assert host["PortBindings"] == {"8080/tcp": [{"HostPort": "80"}, {"HostPort": "81"}], "53/udp": [{"HostPort": "53"}]}
    assert host["Binds"] == ["/a:/b", "/c:/d:ro"]
    assert (body["StopSignal"], body["StopTimeout"]) == ("SIGINT", 1)


def test_a_hook_has_all_of_its_instance_but_ports_and_is_none_for_any_agent() -> None:
    instance, _ = _instance()
    port, volume = {"host_port": 80, "container_port": 8080}, {"host_path": "/a", "container_path": "/b"}
    asked = _body(ports=[port], volumes=[volume], user="1:2", environment={"A": "b"}, command=["/bin/x"], args=["y"], networks=["back"])
    body = hook_body(asked, ["migrate", "--all"])
    assert body["Entrypoint"] == ["migrate", "--all"]
    assert not {"Cmd", "ExposedPorts"} & body.keys()
    assert "PortBindings" not in body["HostConfig"]
    assert (body["User"], body["Env"], body["HostConfig"]["Binds"]) == ("1:2", ["A=b"], ["/a:/b"])
    assert (body["HostConfig"]["NetworkMode"], body["HostConfig"]["RestartPolicy"]) == ("back", {"Name": "no"})
    assert "NetworkingConfig" not in body, "nobody is to find the hook under the app's name"
    assert read_card(body["Labels"], NODE) is None
    assert read_card(labels(instance, NODE) | body["Labels"], NODE) is None, "also of an image that was made of an instance"
    name = hook_name(instance.name, NODE)
    assert is_hook(body["Labels"], name, NODE)
    assert not is_hook(body["Labels"], name, "another")
    assert not is_hook(body["Labels"], "a copy of it", NODE)
    assert not is_hook(labels(instance, NODE), name, NODE)
    assert not is_hook(body["Labels"] | labels(instance, NODE), name, NODE), "an instance of an image that was made of a hook"
    assert read_card(body["Labels"] | labels(instance, NODE), NODE) is not None


def test_the_configured_network_and_registry_are_used_and_another_log_driver_is_left_alone() -> None:
    assert _body("host")["HostConfig"]["NetworkMode"] == "host"
    assert _body(registry="reg.example.com")["Image"] == "reg.example.com/nginx:latest"
    instance, parsed = _instance()
    assert "LogConfig" not in create_body(instance, parsed, Node(NODE), "nginx:latest", bounded_log=False)["HostConfig"]


@pytest.mark.parametrize(
    ("log", "driver", "config"),
    [
        ({}, "json-file", {"max-size": "10485760", "max-file": "3"}),
        ({"max_size": "1Mi"}, "json-file", {"max-size": "1048576", "max-file": "3"}),
        (
            {"driver": "json-file", "options": {"labels": "team", "max-size": "5m"}},
            "json-file",
            {"max-size": "5m", "max-file": "3", "labels": "team"},
        ),
        ({"driver": "local", "max_files": 2}, "local", {"max-size": "10485760", "max-file": "2"}),
        ({"driver": "local", "max_files": 1}, "local", {"max-size": "10485760", "max-file": "1", "compress": "false"}),
        ({"driver": "syslog", "options": {"syslog-address": "udp://127.0.0.1:514"}}, "syslog", {"syslog-address": "udp://127.0.0.1:514"}),
        ({"driver": "none"}, "none", {}),
    ],
)
def test_a_log_driver_of_the_engine_gets_its_options_and_where_it_keeps_files_the_bounds(
    log: dict[str, Any], driver: str, config: dict[str, str]
) -> None:
    assert _body(log=log)["HostConfig"]["LogConfig"] == {"Type": driver, "Config": config}


@pytest.mark.parametrize(
    ("pkg", "expected"),
    [
        ({"network_mode": "host"}, {"NetworkMode": "host"}),
        ({"network_mode": "container:db"}, {"NetworkMode": "container:db"}),
        ({"networks": ["back", "front"]}, {"NetworkMode": "back"}),
        (
            {"extra_hosts": {"db": "10.0.0.1", "gw": "host-gateway"}, "dns": ["192.0.2.53", "::1"]},
            {"ExtraHosts": ["db:10.0.0.1", "gw:host-gateway"], "Dns": ["192.0.2.53", "::1"]},
        ),
        (
            {"cap_add": ["NET_ADMIN"], "cap_drop": ["ALL"], "privileged": True, "read_only": True},
            {"CapAdd": ["NET_ADMIN"], "CapDrop": ["ALL"], "Privileged": True, "ReadonlyRootfs": True},
        ),
        ({"init": True}, {"Init": True}),
        ({"init": False}, {"Init": False}),
        ({"tmpfs": ["/run", "/tmp:size=1m"]}, {"Tmpfs": {"/run": "", "/tmp": "size=1m"}}),
        ({"shm_size": "64m"}, {"ShmSize": 67108864}),
        (
            {"ulimits": {"nofile": {"soft": 1, "hard": 2}, "core": -1}},
            {"Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 2}, {"Name": "core", "Soft": -1, "Hard": -1}]},
        ),
        (
            {"devices": ["/dev/null", "/dev/zero:/dev/x:r"]},
            {
                "Devices": [
                    {"PathOnHost": "/dev/null", "PathInContainer": "/dev/null", "CgroupPermissions": "rwm"},
                    {"PathOnHost": "/dev/zero", "PathInContainer": "/dev/x", "CgroupPermissions": "r"},
                ]
            },
        ),
        ({"gpus": "all"}, {"DeviceRequests": [{"Driver": "", "Capabilities": [["gpu"]], "Options": {}, "Count": -1}]}),
        ({"gpus": 2}, {"DeviceRequests": [{"Driver": "", "Capabilities": [["gpu"]], "Options": {}, "Count": 2}]}),
        ({"gpus": ["0", "a"]}, {"DeviceRequests": [{"Driver": "", "Capabilities": [["gpu"]], "Options": {}, "DeviceIDs": ["0", "a"]}]}),
        ({"volumes": [{"name": "data", "container_path": "/d", "read_only": True}]}, {"Binds": ["data:/d:ro"]}),
        (
            {"ports": [{"host": "80-81", "container": "8080-8081", "protocol": "udp", "host_ip": "127.0.0.1"}]},
            {
                "PortBindings": {
                    "8080/udp": [{"HostPort": "80", "HostIp": "127.0.0.1"}],
                    "8081/udp": [{"HostPort": "81", "HostIp": "127.0.0.1"}],
                }
            },
        ),
    ],
)
def test_a_wish_about_the_node_is_what_docker_run_would_ask_for(pkg: dict[str, Any], expected: dict[str, Any]) -> None:
    assert _body(**pkg)["HostConfig"] == _body()["HostConfig"] | expected


def test_in_its_networks_a_container_answers_to_its_app_and_its_aliases() -> None:
    body = _body("host", networks=[{"name": "back", "aliases": ["db", "my-app"]}, "front"])
    assert body["NetworkingConfig"] == {"EndpointsConfig": {"back": {"Aliases": ["my-app", "db"]}}}
    assert _body(networks=["bridge"])["NetworkingConfig"] == {"EndpointsConfig": {"bridge": {}}}


def test_labels_of_the_user_stand_beside_ours_and_a_host_name_is_given() -> None:
    body = _body(labels={"team": "a"}, hostname="web-1")
    assert body["Labels"] == _body()["Labels"] | {"team": "a"}
    assert body["Hostname"] == "web-1"


# --- what the engine says --------------------------------------------------------------------------


def _state(code: int = 0, *, ran: float = 5.0, **state: Any) -> dict[str, Any]:
    return {
        "Status": "exited",
        "ExitCode": code,
        "OOMKilled": False,
        "StartedAt": (WALL - timedelta(seconds=ran)).isoformat().replace("+00:00", ".000000123Z"),
        "FinishedAt": WALL.isoformat().replace("+00:00", "Z"),
        "Error": "",
        **state,
    }


@pytest.mark.parametrize(
    ("code", "signal"), [(0, None), (1, None), (128, None), (137, "SIGKILL"), (143, "SIGTERM"), (139, "SIGSEGV"), (200, None), (255, None)]
)
def test_a_code_above_128_names_the_signal_that_it_usually_means(code: int, signal: str | None) -> None:
    end = exit_of("r", _state(code), None, Now(1000.0, WALL))
    assert (end.code, end.signal) == (code, signal)


def test_an_out_of_memory_kill_needs_a_failure() -> None:
    assert exit_of("r", _state(137, OOMKilled=True), None, Now(1000.0, WALL)).oom_killed
    assert not exit_of("r", _state(0, OOMKilled=True), None, Now(1000.0, WALL)).oom_killed


def test_a_run_is_measured_by_the_engine_unless_the_wall_clock_was_set() -> None:
    offset = Now(1000.0, WALL).offset
    now = Now(1000.0, WALL)
    assert exit_of("r", _state(ran=5), None, now).seconds == pytest.approx(5, abs=0.001)
    assert exit_of("r", _state(ran=5), Running("r", 990.0, offset), now).seconds == pytest.approx(5, abs=0.001)
    assert exit_of("r", _state(ran=605), Running("r", 995.0, offset - 600), now).seconds == pytest.approx(5)
    assert exit_of("r", _state(ran=-35), Running("r", 995.0, offset + 40), now).seconds == pytest.approx(5)
    assert exit_of("r", _state(ran=-35), None, now).seconds is None
    assert exit_of("r", _state(ran=-0.01), None, now).seconds == 0  # the engine noted the start after the end


def test_an_end_without_a_time_is_an_unknown_end() -> None:
    end = exit_of("r", _state(FinishedAt="0001-01-01T00:00:00Z"), None, Now(1000.0, WALL))
    assert not end.known
    assert end.reason == "exit status unknown"


def _inspected(phase: str, started: str = "2026-01-02T03:04:00Z") -> dict[str, Any]:
    return {"Id": "c" * 64, "State": _state(Status=phase, StartedAt=started)}


def test_the_begin_of_a_run_is_kept_while_the_run_is_the_same_and_forgotten_with_the_next() -> None:
    first = facts(("running", "Up 1 second"), _inspected("running"), Now(50.0, WALL), None, None)
    same = facts(("running", "Up 9 seconds"), _inspected("running"), Now(60.0, WALL), None, first)
    other = facts(("running", "Up 1 second"), _inspected("running", "2026-01-02T03:04:09Z"), Now(70.0, WALL), None, same)
    seen = facts(("running", "Up 1 second"), _inspected("running", "2026-01-02T03:04:09Z"), Now(80.0, WALL), 66.5, other)
    assert [known.running.boottime for known in (first, same, other, seen) if known.running] == [50.0, 50.0, 70.0, 66.5]


def test_an_end_once_told_is_told_the_same_again() -> None:
    first = facts(("exited", "Exited (0) 1 second ago"), _inspected("exited"), Now(50.0, WALL), None, None)
    again = facts(("exited", "Exited (0) 2 minutes ago"), _inspected("exited"), Now(170.0, WALL), None, first)
    assert again.exit is first.exit


@pytest.mark.parametrize(
    ("state", "phase"),
    [
        ("created", Phase.CREATED),
        ("restarting", Phase.RUNNING),
        ("paused", Phase.PAUSED),
        ("dead", Phase.EXITED),
        ("removing", Phase.EXITED),
        ("a-word-of-the-future", Phase.RUNNING),
    ],
)
def test_every_word_of_the_engine_is_a_phase(state: str, phase: Phase) -> None:
    instance, _ = _instance()
    card = read_card(labels(instance, NODE), NODE)
    assert card is not None
    known = Facts((state, ""), phase, Running("r", 1.0, 0.0), None)
    seen = observed(card, {"Id": "c" * 64, "State": state, "Names": ["/my-app.7.2.0b1f7a9e"]}, known, NODE)
    assert (seen.phase, seen.misnamed, seen.run) == (phase, False, 0)
    assert (seen.started is not None) == (phase in (Phase.RUNNING, Phase.PAUSED))


def test_limits_become_those_of_the_engine_and_swap_counts_as_memory() -> None:
    resources = {"cpu_limit": "500m", "memory_limit": "64Mi", "cpu_set": "0-1", "pids_limit": 20}
    config = _body(resources=resources)["HostConfig"]
    limits = {key: config.get(key) for key in ("NanoCpus", "Memory", "MemorySwap", "CpusetCpus", "PidsLimit")}
    assert limits == {"NanoCpus": 500_000_000, "Memory": 67108864, "MemorySwap": 67108864, "CpusetCpus": "0-1", "PidsLimit": 20}
    assert not _body()["HostConfig"].keys() & limits.keys()


def test_what_files_hold_is_given_and_the_spec_wins() -> None:
    instance, parsed = _instance(environment={"A": "spec"}, environment_from=["/etc/app.env"])
    body = create_body(instance, parsed, Node(NODE), "nginx:latest", bounded_log=True, read={"A": "file", "B": "file"})
    assert sorted(body["Env"]) == ["A=spec", "B=file"]
