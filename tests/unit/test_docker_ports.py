"""Who is said to have a port, from what the engine and the kernel list."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from boreas_agent.drivers.docker_ports import taken_port
from boreas_agent.spec import Port

HEADER = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


class Engine:
    """What is asked of the engine's client: the running containers."""

    def __init__(self, *ports: dict[str, Any]) -> None:
        self._ports = list(ports)

    def containers(self) -> list[dict[str, Any]]:
        return [{"Id": "c" * 64, "Names": ["/other"], "Ports": self._ports}]


def _proc(folder: Path, table: str, address: str, port: int) -> Path:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    packed = socket.inet_pton(family, address)
    words = "".join(f"{int.from_bytes(packed[at : at + 4], sys.byteorder):08X}" for at in range(0, len(packed), 4))
    row = f"   0: {words}:{port:04X} 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0\n"
    (folder / "net").mkdir()
    (folder / "net" / table).write_text(HEADER + row)
    (folder / "812" / "fd").mkdir(parents=True)
    (folder / "812" / "comm").write_text("nginx\n")
    (folder / "812" / "fd" / "3").symlink_to("socket:[4711]")
    return folder


@pytest.mark.parametrize(
    ("wanted", "published", "taken"),
    [
        ({}, {}, True),
        ({}, {"Type": "udp"}, False),
        ({}, {"PublicPort": 81}, False),
        ({"host_port": "79-81", "container_port": "79-81"}, {}, True),
        ({"host_ip": "127.0.0.1"}, {}, True),
        ({"host_ip": "127.0.0.1"}, {"IP": "127.0.0.2"}, False),
        ({}, {"IP": "127.0.0.2"}, True),
        ({"host_ip": "::1"}, {}, False),
    ],
)
def test_a_container_has_a_port_on_the_addresses_it_is_published_on(
    tmp_path: Path, wanted: dict[str, Any], published: dict[str, Any], taken: bool
) -> None:
    port = Port(**{"host_port": 80, "container_port": 80} | wanted)
    there = {"IP": "0.0.0.0", "PublicPort": 80, "PrivatePort": 1, "Type": "tcp"} | published
    said = taken_port(Engine({"PrivatePort": 80, "Type": "tcp"}, there), [port], "mine", tmp_path)
    assert said == ("host port 80/tcp is taken by other (container cccccccccccc)" if taken else None)


@pytest.mark.parametrize(
    ("table", "address", "host_ip", "taken"),
    [
        ("tcp", "0.0.0.0", None, True),
        ("tcp", "127.0.0.1", None, True),
        ("tcp", "127.0.0.1", "127.0.0.2", False),
        ("tcp6", "::", "127.0.0.2", True),
        ("tcp6", "::ffff:127.0.0.1", "127.0.0.1", True),
        ("tcp6", "::1", "127.0.0.1", False),
        ("tcp6", "2001:db8::1", "2001:db8::1", True),
    ],
)
def test_a_process_has_a_port_on_the_address_it_listens_on(
    tmp_path: Path, table: str, address: str, host_ip: str | None, taken: bool
) -> None:
    proc = _proc(tmp_path, table, address, 8080)
    said = taken_port(Engine(), [Port(host_port=8080, container_port=1, host_ip=host_ip)], "mine", proc)
    assert said == ("host port 8080/tcp is taken by nginx (pid 812)" if taken else None)


def test_of_a_range_the_port_that_is_taken_is_named(tmp_path: Path) -> None:
    proc = _proc(tmp_path, "tcp", "0.0.0.0", 8001)
    said = taken_port(Engine(), [Port(host_port="8000-8010", container_port="1-11")], "mine", proc)
    assert said == "host port 8001/tcp is taken by nginx (pid 812)"
