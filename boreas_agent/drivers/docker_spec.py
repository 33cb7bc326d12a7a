"""From a pkg to the engine's create arguments: names, labels, references, the request body. Pure.

The body is the engine's own JSON rather than the SDK's keyword arguments, which reformat environments and
bindings: what the user wrote must arrive verbatim.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from boreas_agent.model import Instance, InstanceName
from boreas_agent.spec import DockerPkg

AGENT = "boreas.agent"
APP = "boreas.app"
VERSION = "boreas.version"
REVISION = "boreas.revision"
REPLICA = "boreas.replica"
HASH = "boreas.hash"
RECORD = "boreas.record"

BOUNDED_LOG = {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}}
"""The engine's default driver keeps every line for ever; this keeps the newest 30 MB."""


@dataclass(frozen=True, slots=True)
class Card:
    """What the labels of a container of ours say about it."""

    name: InstanceName
    version: str
    hash: str
    record: str


@dataclass(frozen=True, slots=True)
class Node:
    """What the containers of this node have in common: whose they are, where images come from, their network."""

    identity: str
    registry: str = ""
    network_mode: str = "bridge"


def container_name(name: InstanceName, identity: str) -> str:
    """The one name that this instance has on this node, so that an interrupted start is found again."""
    return f"{name}.{identity[:8]}"


def labels(want: Instance, identity: str) -> dict[str, str]:
    """All that another agent, or this one with an empty database, needs to adopt the container."""
    return {
        AGENT: identity,
        APP: want.name.app,
        VERSION: want.version,
        REVISION: str(want.name.revision),
        REPLICA: str(want.name.replica),
        HASH: want.hash,
        RECORD: want.record,
    }


def read_card(found: Mapping[str, str] | None, identity: str) -> Card | None:
    """The card of a container that is ours; None where it is not, or where its labels make no sense."""
    if not found or found.get(AGENT) != identity or not found.get(APP):
        return None
    try:
        name = InstanceName(found[APP], int(found[REVISION]), int(found[REPLICA]))
    except (KeyError, ValueError):
        return None
    return Card(name, found.get(VERSION, ""), found.get(HASH, ""), found.get(RECORD, ""))


def image_reference(image: str, registry: str) -> str:
    """``image`` as the engine is asked for it: with a tag, and from ``registry`` where it names none itself.

    The first part is a registry where it has a dot, a colon or is ``localhost``: the rule of the engine.
    """
    first, slash, _ = image.partition("/")
    if registry and not (slash and ("." in first or ":" in first or first == "localhost")):
        image = f"{registry.rstrip('/')}/{image}"
    if "@" in image or ":" in image.rpartition("/")[2]:
        return image
    return f"{image}:latest"


def pull_query(reference: str) -> dict[str, str]:
    """The query of ``POST /images/create``; a digest goes where a tag would."""
    if "@" in reference:
        name, _, digest = reference.partition("@")
        return {"fromImage": name, "tag": digest}
    name, _, tag = reference.rpartition(":")
    return {"fromImage": name, "tag": tag}


def registry_of(reference: str) -> str:
    """Whose credentials a pull of ``reference`` needs, as Docker's own configuration file calls it."""
    first, slash, _ = reference.partition("/")
    return first if slash and ("." in first or ":" in first or first == "localhost") else "docker.io"


def create_body(want: Instance, pkg: DockerPkg, node: Node, *, bounded_log: bool) -> dict[str, Any]:
    """The body of ``POST /containers/create``.

    An entrypoint without a command leaves the image's CMD out (the engine's rule), as the contract says.
    ``bounded_log``: whether the log driver must be bounded by us (see :data:`BOUNDED_LOG`).
    """
    body: dict[str, Any] = {
        "Image": image_reference(pkg.image, node.registry),
        "Env": [f"{key}={value}" for key, value in pkg.environment.items()],
        "Labels": labels(want, node.identity),
        "StopSignal": pkg.stop.signal,
        "StopTimeout": math.ceil(pkg.stop.grace_seconds),
        "HostConfig": _host_config(pkg, node.network_mode, bounded_log),
    }
    optional: dict[str, Any] = {
        "Entrypoint": list(pkg.command),
        "Cmd": list(pkg.args),
        "WorkingDir": pkg.working_dir,
        "User": pkg.user,
        "ExposedPorts": {f"{port.container_port}/{port.protocol}": {} for port in pkg.ports},
    }
    return body | {key: value for key, value in optional.items() if value}


def _host_config(pkg: DockerPkg, network_mode: str, bounded_log: bool) -> dict[str, Any]:
    config: dict[str, Any] = {
        "NetworkMode": network_mode,
        "RestartPolicy": {"Name": "no"},  # the agent restarts, and knows why
        "Binds": [f"{v.host_path}:{v.container_path}{':ro' if v.read_only else ''}" for v in pkg.volumes],
        "PortBindings": _port_bindings(pkg),
    }
    return config | {"LogConfig": BOUNDED_LOG} if bounded_log else config


def _port_bindings(pkg: DockerPkg) -> dict[str, list[dict[str, str]]]:
    bindings: dict[str, list[dict[str, str]]] = {}
    for port in pkg.ports:
        bindings.setdefault(f"{port.container_port}/{port.protocol}", []).append({"HostPort": str(port.host_port)})
    return bindings
