"""How containers are reached and what they reach, as users ask for it: Compose's names and value syntax.

A value that may be written in several ways is kept in one of them, so that the same wish has the same hash.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, PlainValidator, model_validator

from boreas_agent.spec.fields import LIST, Model, Plain, misplaced

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?(?:\.[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?)*")
_RANGE = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
_HOST_GATEWAY = "host-gateway"
NOT_JOINED = frozenset({"host", "none", "default"})
"""What is a mode and no network that a container could join."""


def _engine_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError("must be a name of letters, digits and _ . - that begins with a letter or a digit")
    return name


EngineName = Annotated[Plain, AfterValidator(_engine_name)]
"""What the engine takes as the name of a network, a volume or a container."""


def _host_name(name: str) -> str:
    if len(name) > 253 or not all(len(label) <= 63 for label in name.split(".")) or not _HOST.fullmatch(name):
        raise ValueError("must be a host name such as 'db' or 'db.example.com'")
    return name


def _short_host_name(name: str) -> str:
    if len(name) > 64:
        raise ValueError("must not be longer than 64 characters: the kernel takes no more")
    return _host_name(name)


def _address(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        raise ValueError(f"must be an IP address such as 192.0.2.1, not {text[:64]!r}") from None


def listed(value: object) -> object:
    """One text is as good as a list of one."""
    return [value] if isinstance(value, str) else value


IpAddress = Annotated[Plain, AfterValidator(_address)]
HostName = Annotated[Plain, AfterValidator(_short_host_name)]


# --- ports -----------------------------------------------------------------------------------------


def _ports(value: object) -> int | str:
    """A port or a range of them: ``80``, ``"80"`` and ``"80-80"`` are the same."""
    found = _RANGE.fullmatch(str(value)) if isinstance(value, int | str) and not isinstance(value, bool) else None
    if found is None:
        raise ValueError("must be a port such as 8080 or a range such as '8000-8010'")
    low, high = int(found[1]), int(found[2] or found[1])
    if low < 1 or high > 65535:
        raise ValueError("must be between 1 and 65535")
    if low > high:
        raise ValueError(f"the range {low}-{high} is empty: the lower port comes first")
    return low if low == high else f"{low}-{high}"


PortRange = Annotated[int | str, PlainValidator(_ports, json_schema_input_type=int | str)]


class Port(Model):
    """A port of the node, or a range of them, that leads to one of the container. ``host`` and ``container`` are accepted names."""

    host_port: PortRange = Field(validation_alias=AliasChoices("host_port", "host"))
    container_port: PortRange = Field(validation_alias=AliasChoices("container_port", "container"))
    protocol: Literal["tcp", "udp"] = "tcp"
    host_ip: IpAddress | None = None

    @model_validator(mode="before")
    @classmethod
    def _one_name_each(cls, data: object) -> object:
        for short, name in (("host", "host_port"), ("container", "container_port")):
            if isinstance(data, dict) and short in data and name in data:
                raise misplaced(short, f"is another name for {name}; give one of them")
        return data

    @model_validator(mode="after")
    def _one_for_one(self) -> Self:
        host, container = _expanded(self.host_port), _expanded(self.container_port)
        if len(host) != len(container):
            raise misplaced("container_port", f"has {len(container)} ports for {len(host)} host ports; give ranges of one length")
        return self

    @property
    def host_ports(self) -> range:
        """The ports of the node."""
        return _expanded(self.host_port)

    @property
    def pairs(self) -> Iterator[tuple[int, int]]:
        """Host port and container port, one by one."""
        return zip(self.host_ports, _expanded(self.container_port), strict=True)


def _expanded(ports: int | str) -> range:
    low, _, high = str(ports).partition("-")
    return range(int(low), int(high or low) + 1)


def bound(host_ip: str | None) -> tuple[tuple[int, str], ...]:
    """Where a port is listened on: families (4, 6) with an address each, which is empty where it is every one."""
    if host_ip is None:
        return ((4, ""), (6, ""))
    address = ip_address(host_ip)
    return ((address.version, "" if address.is_unspecified else str(address)),)


def overlap(one: str | None, other: str | None) -> bool:
    """Whether who has a port on the one address keeps others off it on the other."""
    return any(f == g and (not a or not b or a == b) for f, a in bound(one) for g, b in bound(other))


def given_twice(ports: Sequence[Port]) -> tuple[int, int] | None:
    """The first of ``ports``, by its index, that takes a host port which is taken already, and that port."""
    taken: dict[tuple[int, str, int], set[str]] = {}
    for index, port in enumerate(ports):
        for host_port in port.host_ports:
            for family, address in bound(port.host_ip):
                there = taken.setdefault((host_port, port.protocol, family), set())
                if there and (not address or "" in there or address in there):
                    return index, host_port
                there.add(address)
    return None


# --- networks --------------------------------------------------------------------------------------


def _mode(mode: str) -> str:
    kind, colon, name = mode.partition(":")
    if colon:
        if kind != "container":
            raise ValueError("must be host, none, bridge, container:NAME or the name of a network")
        return f"container:{_engine_name(name)}"
    return _engine_name(mode)


NetworkMode = Annotated[Plain, AfterValidator(_mode)]


class Network(Model):
    """A network to join, by its name. ``create``: make it where there is none, and remove it when nobody uses it any more.

    In a network that somebody made, the container answers to its ``aliases`` and to the name of its app.
    """

    name: EngineName
    aliases: Annotated[tuple[Annotated[Plain, AfterValidator(_host_name)], ...], *LIST] = ()
    create: bool = False

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, data: object) -> object:
        return {"name": data} if isinstance(data, str) else data

    @model_validator(mode="after")
    def _can_be_joined(self) -> Self:
        if self.name in NOT_JOINED:
            raise misplaced("name", f"{self.name} is no network that can be joined; give network_mode: {self.name} instead of networks")
        if self.name == "bridge" and (self.aliases or self.create):
            field = "aliases" if self.aliases else "create"
            raise misplaced(field, "the engine's own network bridge has no aliases and is always there; use a network of another name")
        return self


# --- names and addresses ---------------------------------------------------------------------------


def _host_entries(value: object) -> object:
    """``{"db": "10.0.0.1"}`` as the list ``["db:10.0.0.1"]``; a host may have several addresses."""
    if not isinstance(value, dict):
        return listed(value)
    pairs = [(host, ip) for host, ips in value.items() for ip in (ips if isinstance(ips, list) else [ips])]
    return [f"{host}:{ip}" if isinstance(ip, str) else ip for host, ip in pairs]


def _host_entry(entry: str) -> str:
    host, separator, ip = entry.partition("=") if "=" in entry else entry.partition(":")
    if not separator:
        raise ValueError("must be like 'db:10.0.0.1': a host name and its address")
    ip = ip.removeprefix("[").removesuffix("]")
    return f"{_host_name(host)}:{ip if ip == _HOST_GATEWAY else _address(ip)}"


ExtraHosts = Annotated[
    tuple[Annotated[Plain, AfterValidator(_host_entry)], ...],
    *LIST,
    BeforeValidator(_host_entries, json_schema_input_type=dict[str, Any] | list[str]),
]
Addresses = Annotated[tuple[IpAddress, ...], *LIST, BeforeValidator(listed, json_schema_input_type=str | list[str])]
