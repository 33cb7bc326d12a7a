"""From a pkg to the engine's create arguments: names, labels, references, the request body. Pure.

The body is the engine's own JSON rather than the SDK's keyword arguments, which reformat environments and
bindings: what the user wrote must arrive verbatim.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from msgspec import Struct

from boreas_agent.model import Instance, InstanceName
from boreas_agent.spec import DockerPkg, LogPolicy, Network, Resources, as_bytes
from boreas_agent.spec.logs import BOUNDED

AGENT = "boreas.agent"
APP = "boreas.app"
VERSION = "boreas.version"
REVISION = "boreas.revision"
REPLICA = "boreas.replica"
HASH = "boreas.hash"
RECORD = "boreas.record"
HOOK = "boreas.hook"

_NONE: Mapping[str, str] = MappingProxyType({})
_NOWHERE = Path("/nonexistent")


class Card(Struct, frozen=True):
    """What the labels of a container of ours say about it."""

    name: InstanceName
    version: str
    hash: str
    record: str


class Node(Struct, frozen=True):
    """What the containers of this node have in common: whose they are, and their network."""

    identity: str
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


def create_body(  # noqa: PLR0913  # whose, of what, where, and what was looked up for it
    want: Instance, pkg: DockerPkg, node: Node, image: str, *, bounded_log: bool, read: Mapping[str, str] = _NONE, files: Path = _NOWHERE
) -> dict[str, Any]:
    """The body of ``POST /containers/create``, from ``image``; ``read``: what the files of ``environment_from`` hold.

    ``files``: the folder in which its own files are, by their places in the spec.

    An entrypoint without a command leaves the image's CMD out (the engine's rule), as the contract says.
    ``bounded_log``: whether the engine's own log driver is one that must be bounded by us.
    """
    body: dict[str, Any] = {
        "Image": image,
        "Env": [f"{key}={value}" for key, value in {**read, **pkg.environment}.items()],
        "Labels": pkg.labels | labels(want, node.identity),
        "StopSignal": pkg.stop.signal,
        "StopTimeout": math.ceil(pkg.stop.grace_seconds),
        "HostConfig": host_config(pkg, node.network_mode, bounded_log=bounded_log) | _mounts(pkg, files),
    }
    first = pkg.networks[0] if pkg.networks else None  # an engine may take no more at once: the others are joined before the start
    optional: dict[str, Any] = {
        "Entrypoint": list(pkg.command),
        "Cmd": list(pkg.args),
        "WorkingDir": pkg.working_dir,
        "User": pkg.user,
        "Hostname": pkg.hostname,
        "ExposedPorts": {f"{inside}/{port.protocol}": {} for port in pkg.ports for _, inside in port.pairs},
        "NetworkingConfig": {"EndpointsConfig": {first.name: endpoint(want.name.app, first)}} if first else None,
    }
    return body | {key: value for key, value in optional.items() if value}


def hook_name(name: InstanceName, identity: str) -> str:
    """The one name of the container in which the ``pre_start`` hook of a revision runs."""
    return f"{name.app}.{name.revision}.pre-start.{identity[:8]}"


def hook_body(body: Mapping[str, Any], command: Sequence[str]) -> dict[str, Any]:
    """From the body of an instance to that of a container that runs ``command`` once, in its place but not at its ports.

    Without a replica and a record it is no instance for any agent; both are given as empty, for an image may bring some along.
    """
    host = {key: value for key, value in body["HostConfig"].items() if key != "PortBindings"}
    kept = {key: value for key, value in body.items() if key not in ("Cmd", "ExposedPorts", "NetworkingConfig")}
    return kept | {
        "Entrypoint": list(command),
        "Labels": body["Labels"] | {REPLICA: "", RECORD: "", HASH: "", HOOK: "pre_start"},
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": host,
    }


def is_hook(found: Mapping[str, str] | None, name: str, identity: str) -> bool:
    """Whether a container of that name and with these labels is such a one of this node; labels alone may come with an image."""
    if not found or found.get(AGENT) != identity or not found.get(HOOK) or found.get(REPLICA):
        return False
    revision = found.get(REVISION, "")
    return revision.isdecimal() and name == hook_name(InstanceName(found.get(APP, ""), int(revision), 0), identity)


def endpoint(app: str, network: Network) -> dict[str, Any]:
    """How a container of ``app`` is in a network: the names that it answers to there, of which its app's is always one."""
    return {} if network.name == "bridge" else {"Aliases": list(dict.fromkeys((app, *network.aliases)))}


def host_config(pkg: DockerPkg, network_mode: str, *, bounded_log: bool) -> dict[str, Any]:
    """What of it is about the node; ``network_mode`` is for those that name neither a mode nor networks."""
    mode = pkg.networks[0].name if pkg.networks else pkg.network_mode or network_mode
    config: dict[str, Any] = {
        "NetworkMode": mode,
        "RestartPolicy": {"Name": "no"},  # the agent restarts, and knows why
        "Binds": [f"{v.source}:{v.container_path}{':ro' if v.read_only else ''}" for v in pkg.volumes],
        "PortBindings": _port_bindings(pkg),
    }
    optional: dict[str, Any] = {
        "ExtraHosts": list(pkg.extra_hosts),
        "Dns": list(pkg.dns),
        "CapAdd": list(pkg.cap_add),
        "CapDrop": list(pkg.cap_drop),
        "Privileged": pkg.privileged,
        "ReadonlyRootfs": pkg.read_only,
        "Tmpfs": pkg.tmpfs,
        "ShmSize": pkg.shm_size,
        "Ulimits": [{"Name": name, "Soft": limit.soft, "Hard": limit.hard} for name, limit in pkg.ulimits.items()],
        "Devices": [_device(device) for device in pkg.devices],
        "DeviceRequests": _gpus(pkg.gpus),
        "LogConfig": _log_config(pkg.log) if bounded_log or pkg.log != LogPolicy() else None,
    }
    config |= {key: value for key, value in optional.items() if value} | _limits(pkg.resources)
    return config if pkg.init is None else config | {"Init": pkg.init}


def _mounts(pkg: DockerPkg, folder: Path) -> dict[str, Any]:
    """Of its files. Unlike a bind in ``Binds`` such a one fails where its source is missing, and makes no folder of that name."""
    sources = [(str(folder / str(index)), file.path) for index, file in enumerate(pkg.files)]
    return {"Mounts": [{"Type": "bind", "Source": one, "Target": path, "ReadOnly": True} for one, path in sources]} if sources else {}


def _log_config(log: LogPolicy) -> dict[str, Any]:
    """The engine's default driver keeps every line for ever; this keeps the newest."""
    driver = log.driver or "json-file"
    if driver not in BOUNDED:
        return {"Type": driver, "Config": dict(log.options)}
    config = {"max-size": str(as_bytes(log.max_size)), "max-file": str(log.max_files)} | log.options
    if driver == "local" and config["max-file"] == "1":
        config = {"compress": "false"} | config  # it compresses all files but the newest, and refuses to where there is no other
    return {"Type": driver, "Config": config}


def _limits(resources: Resources) -> dict[str, Any]:
    """Swap counts as memory: what is over its limit is killed, not slowed down."""
    limits = {
        "NanoCpus": None if resources.cpus is None else round(resources.cpus * 1e9),
        "Memory": resources.memory,
        "MemorySwap": resources.memory,
        "CpusetCpus": resources.cpu_set,
        "PidsLimit": resources.pids_limit,
    }
    return {key: value for key, value in limits.items() if value is not None}


def _port_bindings(pkg: DockerPkg) -> dict[str, list[dict[str, str]]]:
    bindings: dict[str, list[dict[str, str]]] = {}
    for port in pkg.ports:
        for outside, inside in port.pairs:
            binding = {"HostPort": str(outside)} | ({"HostIp": port.host_ip} if port.host_ip else {})
            bindings.setdefault(f"{inside}/{port.protocol}", []).append(binding)
    return bindings


def _device(text: str) -> dict[str, str]:
    outside, inside, rights = text.split(":")
    return {"PathOnHost": outside, "PathInContainer": inside, "CgroupPermissions": rights}


def _gpus(wanted: int | str | tuple[str, ...] | None) -> list[dict[str, Any]]:
    """As ``docker run --gpus`` asks for them."""
    if wanted is None:
        return []
    which = {"DeviceIDs": list(wanted)} if isinstance(wanted, tuple) else {"Count": -1 if wanted == "all" else wanted}
    return [{"Driver": "", "Capabilities": [["gpu"]], "Options": {}, **which}]
