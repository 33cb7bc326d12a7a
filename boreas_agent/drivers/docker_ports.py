"""Who has a host port already: another container, or a process of the node.

The engine only says that a start failed, in words that differ between versions; so whoever really holds one of the
wanted ports is looked up. Best effort: an agent in a container of its own sees less. Reads ``/proc``, so it blocks.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeAlias

from boreas_agent.drivers.docker_api import Client
from boreas_agent.spec import Port, overlap

_LISTENING = {"tcp": "0A", "udp": "07"}
_PROC = Path("/proc")
_Place: TypeAlias = tuple[str | None, int, str]
"""An address (None: every one), a port of it, a protocol."""


def taken_port(client: Client, ports: Sequence[Port], ref: str, proc: Path = _PROC) -> str | None:
    """Who has one of ``ports`` already: another container or a process of the node."""
    published = [
        (_name(container), found) for container in client.containers() if container["Id"] != ref for found in _published(container)
    ]
    listening = list(_listening(proc))
    for port in ports:
        for host_port in port.host_ports:
            holder = next((name for name, place in published if _is(port, host_port, place)), "")
            sockets = {inode for inode, place in listening if not holder and _is(port, host_port, place)}
            if holder or sockets:
                return f"host port {host_port}/{port.protocol} is taken by {holder or _holder(sockets, proc)}"
    return None


def _is(port: Port, host_port: int, place: _Place) -> bool:
    address, number, protocol = place
    return (number, protocol) == (host_port, port.protocol) and overlap(port.host_ip, address)


def _name(container: Mapping[str, Any]) -> str:
    name = (container.get("Names") or ["a container"])[0].lstrip("/")
    return f"{name} (container {container['Id'][:12]})"


def _published(container: Mapping[str, Any]) -> Iterator[_Place]:
    for port in container.get("Ports") or ():
        if port.get("PublicPort"):
            yield port.get("IP") or None, int(port["PublicPort"]), str(port.get("Type"))


def _holder(sockets: set[str], proc: Path) -> str:
    for pid in _pids(proc):
        if not sockets.isdisjoint(_sockets_of(pid, proc)):
            return f"{_command(pid, proc)} (pid {pid})"
    return "a process that cannot be seen from here"


def _listening(proc: Path) -> Iterator[tuple[str, _Place]]:
    """Every listening socket, by the name that it has among a process's descriptors."""
    for protocol, table in ((protocol, f"{protocol}{family}") for protocol in _LISTENING for family in ("", "6")):
        try:
            rows = (proc / "net" / table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, rows):
            if fields[3] == _LISTENING[protocol]:
                address, _, port = fields[1].rpartition(":")
                yield f"socket:[{fields[9]}]", (_address(address), int(port, 16), protocol)


def _address(text: str) -> str | None:
    """From the kernel's words of four bytes, each in the order of the machine. ``::`` takes IPv4 as well."""
    words = [int(text[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(text), 8)]
    address = ip_address(b"".join(words))
    return None if address == ip_address("::") else str(getattr(address, "ipv4_mapped", None) or address)


def _pids(proc: Path) -> Iterable[int]:
    return sorted(int(entry.name) for entry in proc.iterdir() if entry.name.isdigit())


def _sockets_of(pid: int, proc: Path) -> Iterator[str]:
    try:
        for descriptor in (proc / str(pid) / "fd").iterdir():
            try:
                yield str(descriptor.readlink())
            except OSError:
                continue
    except OSError:
        return


def _command(pid: int, proc: Path) -> str:
    try:
        return (proc / str(pid) / "comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return "a process"
