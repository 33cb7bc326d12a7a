"""Who has a host port already: another container, or a process of the node.

The engine only says that a start failed, in words that differ between versions; so whoever really holds one of the
wanted ports is looked up. Best effort: an agent in a container of its own sees less. Reads ``/proc``, so it blocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from boreas_agent.drivers.docker_api import Client
from boreas_agent.spec import Port

_LISTENING = {"tcp": "0A", "udp": "07"}
_PROC = Path("/proc")


def taken_port(client: Client, ports: Sequence[Port], ref: str) -> str | None:
    """Who has one of ``ports`` already: another container or a process of the node."""
    running = [container for container in client.containers() if container["Id"] != ref]
    for port in ports:
        for container in running:
            if any((p.get("PublicPort"), p.get("Type")) == (port.host_port, port.protocol) for p in container.get("Ports") or ()):
                name = (container.get("Names") or ["a container"])[0].lstrip("/")
                return f"host port {port.host_port}/{port.protocol} is taken by {name} (container {container['Id'][:12]})"
        if holder := port_holder(port.host_port, port.protocol):
            return f"host port {port.host_port}/{port.protocol} is taken by {holder}"
    return None


def port_holder(port: int, protocol: str, proc: Path = _PROC) -> str | None:
    """``nginx (pid 812)``, ``a process that cannot be seen from here``, or None where nobody listens on the port."""
    sockets = set(_listening(port, protocol, proc))
    if not sockets:
        return None
    for pid in _pids(proc):
        if sockets & set(_sockets_of(pid, proc)):
            return f"{_command(pid, proc)} (pid {pid})"
    return "a process that cannot be seen from here"


def _listening(port: int, protocol: str, proc: Path) -> Iterator[str]:
    for table in (protocol, f"{protocol}6"):
        try:
            rows = (proc / "net" / table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            fields = row.split()
            if fields[3] == _LISTENING[protocol] and int(fields[1].rpartition(":")[2], 16) == port:
                yield f"socket:[{fields[9]}]"


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
