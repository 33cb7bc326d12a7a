"""What a container may be asked to be, in which words, and what is wrong with all others."""

from __future__ import annotations

import json
from typing import Any

import pytest

from boreas_agent.errors import Invalid
from boreas_agent.spec import DockerPkg, canonical, instance_hash, masked_text, parse_pkg

DOCKER: dict[str, Any] = {"type": "docker", "image": "nginx:1.27"}
EVERYTHING: dict[str, Any] = {
    "networks": ["back", {"name": "front", "aliases": ["www"], "create": True}],
    "hostname": "web-1",
    "extra_hosts": ["db:10.0.0.1"],
    "dns": ["192.0.2.53"],
    "cap_add": ["NET_ADMIN"],
    "cap_drop": ["ALL"],
    "privileged": True,
    "init": False,
    "read_only": True,
    "tmpfs": {"/run": "size=64m"},
    "shm_size": "64m",
    "ulimits": {"nofile": {"soft": 1024, "hard": 2048}},
    "devices": ["/dev/null"],
    "gpus": "all",
    "labels": {"team": "a"},
    "volumes": [{"name": "data", "container_path": "/data"}],
    "ports": [{"host": "8000-8002", "container": "80-82", "host_ip": "127.0.0.1"}],
}


def parsed(**pkg: Any) -> DockerPkg:
    made = parse_pkg(DOCKER | pkg)
    assert isinstance(made, DockerPkg)
    return made


def faults(**pkg: Any) -> dict[str, str]:
    with pytest.raises(Invalid) as refused:
        parse_pkg(DOCKER | pkg)
    return {fault.field: fault.message for fault in refused.value.fields}


def _hash(**pkg: Any) -> str:
    return instance_hash("v1", parsed(**pkg), 1, 1)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"networks": ["a"]}, {"networks": [{"name": "a", "aliases": [], "create": False}]}),
        ({"extra_hosts": {"db": "10.0.0.1", "x": ["::1", "host-gateway"]}}, {"extra_hosts": ["db=10.0.0.1", "x:[::1]", "x:host-gateway"]}),
        ({"dns": "192.0.2.53"}, {"dns": ["192.0.2.53"]}),
        ({"cap_add": ["cap_net_admin"]}, {"cap_add": ["NET_ADMIN"]}),
        ({"tmpfs": "/run"}, {"tmpfs": {"/run": ""}}),
        ({"tmpfs": ["/run:size=1m,mode=1777", "/tmp"]}, {"tmpfs": {"/tmp": "", "/run": "size=1m,mode=1777"}}),
        ({"shm_size": "64m"}, {"shm_size": 64 * 2**20}),
        ({"shm_size": "1Gi"}, {"shm_size": "1024MB"}),
        ({"ulimits": {"nproc": 10}}, {"ulimits": {"nproc": {"soft": 10, "hard": 10}}}),
        ({"devices": ["/dev/null"]}, {"devices": ["/dev/null:/dev/null:rwm"]}),
        ({"devices": ["/dev/null:r"]}, {"devices": ["/dev/null:/dev/null:r"]}),
        ({"labels": ["a=b=c", "d"]}, {"labels": {"d": "", "a": "b=c"}}),
        ({"ports": [{"host": "80", "container": "80-80"}]}, {"ports": [{"host_port": 80, "container_port": 80, "protocol": "tcp"}]}),
        ({"privileged": False, "read_only": False, "cap_add": [], "tmpfs": {}, "networks": [], "init": None}, {}),
    ],
)
def test_the_ways_to_write_one_wish_are_the_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert canonical(parsed(**one)) == canonical(parsed(**other))
    assert parse_pkg(canonical(parsed(**one))) == parsed(**one)


def test_everything_at_once_survives_its_canonical_form() -> None:
    pkg = parsed(**EVERYTHING)
    assert parse_pkg(canonical(pkg)) == pkg


def test_changing_any_of_them_makes_another_instance() -> None:
    assert len({_hash(), *(_hash(**{field: value}) for field, value in EVERYTHING.items())}) == len(EVERYTHING) + 1


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ({"network_mode": "service:db"}, "network_mode", "must be host, none, bridge, container:NAME or the name of a network"),
        ({"network_mode": "a b"}, "network_mode", "must be a name"),
        ({"network_mode": "host", "networks": ["a"]}, "network_mode", "give either networks"),
        ({"network_mode": "host", "ports": [{"host": 1, "container": 1}]}, "network_mode", "host has no ports of its own to publish"),
        ({"network_mode": "none", "ports": [{"host": 1, "container": 1}]}, "network_mode", "none has no ports"),
        ({"network_mode": "container:db", "ports": [{"host": 1, "container": 1}]}, "network_mode", "container:db has no ports"),
        ({"network_mode": "container:db", "hostname": "x"}, "hostname", "is that container's; leave it out"),
        ({"network_mode": "container:db", "dns": "192.0.2.1"}, "dns", "is that container's; leave it out"),
        ({"networks": ["host"]}, "networks[0].name", "give network_mode: host instead"),
        ({"networks": ["a", "a"]}, "networks", "a is given twice"),
        ({"networks": [{"name": "a", "alias": "x"}]}, "networks[0].alias", "unknown field"),
        ({"networks": [{"aliases": ["x"]}]}, "networks[0].name", "is required"),
        ({"networks": [{"name": "bridge", "aliases": ["x"]}]}, "networks[0].aliases", "has no aliases"),
        ({"networks": [{"name": "bridge", "create": True}]}, "networks[0].create", "is always there"),
        ({"networks": [1]}, "networks[0]", "must be an object"),
        ({"hostname": "a_.b!"}, "hostname", "must be a host name"),
        ({"hostname": "a" * 65}, "hostname", "the kernel takes no more"),
        ({"extra_hosts": ["db"]}, "extra_hosts[0]", "must be like 'db:10.0.0.1'"),
        ({"extra_hosts": {"db": "nowhere"}}, "extra_hosts[0]", "must be an IP address such as 192.0.2.1, not 'nowhere'"),
        ({"extra_hosts": {"db": 1}}, "extra_hosts[0]", "must be a string"),
        ({"dns": ["one"]}, "dns[0]", "must be an IP address"),
        ({"dns": 1}, "dns", "must be a list"),
        ({"cap_add": ["FLY"]}, "cap_add[0]", "'FLY' is not the name of a capability"),
        ({"cap_add": ["KILL"], "cap_drop": ["CHOWN", "CAP_KILL"]}, "cap_drop[1]", "KILL is in cap_add, too"),
        ({"init": "yes"}, "init", "must be true or false"),
        ({"privileged": 1}, "privileged", "must be true or false"),
        ({"tmpfs": ["run"]}, "tmpfs.run", "must be an absolute path"),
        ({"tmpfs": ["/run", "/run:size=1"]}, "tmpfs", "/run is given twice"),
        ({"tmpfs": {"/run": "a b"}}, "tmpfs./run", "must be mount options"),
        ({"tmpfs": ["/d"], "volumes": [{"host_path": "/a", "container_path": "/d"}]}, "volumes[0].container_path", "/d is mounted twice"),
        ({"shm_size": "big"}, "shm_size", "must be a size such as '512Mi' or '512m'"),
        ({"shm_size": 0}, "shm_size", "a number of bytes above 0"),
        ({"shm_size": True}, "shm_size", "must be a size"),
        ({"shm_size": "9" * 25}, "shm_size", "must be a size"),
        ({"shm_size": 10**400}, "shm_size", "must be a size"),
        ({"ulimits": {"files": 1}}, "ulimits.files", "must be 'core', 'cpu'"),
        ({"ulimits": {"nofile": {"soft": 2, "hard": 1}}}, "ulimits.nofile.soft", "must not be above the hard limit, 1"),
        ({"ulimits": {"nofile": {"soft": 2}}}, "ulimits.nofile.hard", "is required"),
        ({"ulimits": {"nofile": {"soft": -2, "hard": 1}}}, "ulimits.nofile.soft", "must be greater than or equal to -1"),
        ({"devices": ["null"]}, "devices[0]", "must be like '/dev/x'"),
        ({"devices": ["/dev/x:/dev/y:rr"]}, "devices[0]", "must be like '/dev/x'"),
        ({"devices": ["/dev/x:/dev/y:r:w"]}, "devices[0]", "must be like '/dev/x'"),
        ({"gpus": "some"}, "gpus", "must be 'all', a number of GPUs, or a list of their ids"),
        ({"gpus": 0}, "gpus", "must be 'all'"),
        ({"gpus": ["0", "0"]}, "gpus", "'0' is given twice"),
        ({"labels": {"boreas.app": "x"}}, "labels.boreas.app", "are the agent's own; choose another name"),
        ({"labels": ["a=1", "a=2"]}, "labels", "a is given twice"),
        ({"labels": {"": "x"}}, "labels.", "must not be empty"),
        ({"labels": {"a": 1}}, "labels.a", "must be a string"),
        ({"volumes": [{"container_path": "/d"}]}, "volumes[0].host_path", "is required; or give name"),
        ({"volumes": [{"host_path": "/a", "name": "a", "container_path": "/d"}]}, "volumes[0].name", "not both"),
        ({"volumes": [{"name": "/a", "container_path": "/d"}]}, "volumes[0].name", "must be a name"),
        ({"ports": [{"host": "8000-8010", "container": "80-81"}]}, "ports[0].container_port", "has 2 ports for 11 host ports"),
        ({"ports": [{"host": "8010-8000", "container": "80-90"}]}, "ports[0].host", "the range 8010-8000 is empty"),
        ({"ports": [{"host": "80a", "container": 80}]}, "ports[0].host", "must be a port such as 8080 or a range"),
        ({"ports": [{"host": True, "container": 80}]}, "ports[0].host", "must be a port"),
        ({"ports": [{"host": 65536, "container": 80}]}, "ports[0].host", "must be between 1 and 65535"),
        ({"ports": [{"host": 80, "container": 80, "host_ip": "eth0"}]}, "ports[0].host_ip", "must be an IP address"),
        ({"ports": [{"host": "1-3000", "container": "1-3000"}]}, "ports", "must not publish more than 2048 ports in all"),
        ({"ports": [{"host": "80-82", "container": "80-82"}], "replicas": 2}, "replicas", "cannot share fixed host ports"),
        (
            {"ports": [{"host": "80-82", "container": "80-82"}], "rollout": {"strategy": "start-first"}},
            "rollout.strategy",
            "host port 80-82",
        ),
        (
            {"network_mode": "host", "rollout": {"strategy": "start-first"}, "health": {"readiness": {"tcp": {"port": 80}}}},
            "rollout.strategy",
            "with network_mode host both would use port 80, which health.readiness asks",
        ),
    ],
)
def test_a_wrong_wish_is_named_with_its_way_out(change: dict[str, Any], field: str, words: str) -> None:
    found = faults(**change)
    assert list(found) == [f"pkg.{field}"]
    assert words in found[f"pkg.{field}"]


@pytest.mark.parametrize(
    ("one", "other", "clash"),
    [
        ({}, {}, True),
        ({}, {"protocol": "udp"}, False),
        ({}, {"host_ip": "127.0.0.1"}, True),
        ({"host_ip": "127.0.0.1"}, {"host_ip": "127.0.0.2"}, False),
        ({"host_ip": "127.0.0.1"}, {"host_ip": "0.0.0.0"}, True),
        ({"host_ip": "::"}, {"host_ip": "0.0.0.0"}, False),
        ({"host_ip": "::1"}, {"host_ip": "0.0.0.0"}, False),
        ({"host": "79-81", "container": "1-3"}, {}, True),
        ({"host": "81-83", "container": "1-3"}, {}, False),
    ],
)
def test_host_ports_clash_where_they_are_on_one_address(one: dict[str, Any], other: dict[str, Any], clash: bool) -> None:
    ports = [{"host": 80, "container": 1, **one}, {"host": 80, "container": 2, **other}]
    for order in (ports, ports[::-1]):
        if clash:
            assert faults(ports=order) == {"pkg.ports[1].host_port": "host port 80/tcp is given twice"}
        else:
            assert len(parsed(ports=order).ports) == 2


def test_two_that_share_no_port_may_be_side_by_side_in_the_nodes_network() -> None:
    parsed(network_mode="host", rollout={"strategy": "start-first"}, health={"readiness": {"exec": {"command": ["true"]}}})


def test_a_log_driver_has_the_name_and_the_options_that_the_engine_has_for_it_and_the_values_are_nobodys_to_see() -> None:
    asked = {"driver": "splunk", "options": {"splunk-token": "secret", "tag": "{{.Name}}"}}
    assert canonical(parsed(log=asked))["log"] == asked
    assert json.loads(masked_text(parsed(log=asked)))["log"] == {"driver": "splunk", "options": {"splunk-token": "***", "tag": "***"}}
    assert parsed(log={"driver": "local", "max_size": "1Mi"}).log.max_size == "1Mi"
    assert parsed(log={"driver": "grafana/loki-docker-driver:3.3"}).log.driver == "grafana/loki-docker-driver:3.3"


def test_what_is_not_said_of_a_log_driver_changes_no_hash() -> None:
    assert _hash() == _hash(log={"driver": None, "options": {}}) == _hash(log={"max_size": "10Mi", "max_files": 3})
    assert _hash() != _hash(log={"driver": "journald"})


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        (
            {"driver": "sys log"},
            {"pkg.log.driver": "must be the name of a log driver of the engine, such as 'local', 'journald' or 'syslog'"},
        ),
        ({"options": {"tag": "x"}}, {"pkg.log.driver": "give the driver that log.options are for"}),
        (
            {"driver": "syslog", "max_size": "10Mi"},
            {"pkg.log.max_size": "only json-file and local keep files that it could bound; leave it out with syslog"},
        ),
        (
            {"driver": "none", "max_files": 1},
            {"pkg.log.max_files": "only json-file and local keep files that it could bound; leave it out with none"},
        ),
        (
            {"driver": "local", "max_size": "1Mi", "options": {"max-size": "1m"}},
            {"pkg.log.options.max-size": "log.max_size says the same; give one of them"},
        ),
    ],
)
def test_a_log_that_cannot_be_is_refused_with_the_way_out(log: dict[str, Any], expected: dict[str, str]) -> None:
    assert faults(log=log) == expected


def test_the_options_of_a_log_driver_are_texts() -> None:
    assert set(faults(log={"driver": "local", "options": {"max-file": 3}})) == {"pkg.log.options.max-file"}


@pytest.mark.parametrize("kind", [{"type": "binary", "command": ["/bin/true"]}, {"type": "script", "command": ["true"]}])
@pytest.mark.parametrize("log", [{"driver": "syslog"}, {"options": {"a": "b"}}, {"driver": "none", "max_size": "10Mi"}])
def test_processes_have_no_log_drivers(kind: dict[str, Any], log: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as refused:
        parse_pkg(kind | {"log": log})
    (fault,) = refused.value.fields
    assert (fault.field, fault.message) == (f"pkg.log.{next(iter(log))}", "only containers have log drivers; leave it out")
