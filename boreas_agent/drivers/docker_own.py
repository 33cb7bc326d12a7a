"""The container that the agent itself lives in, where it does: never to be touched, and to come back by itself.

The kernel says which one: Docker binds files of the container over /etc/hostname and others (whatever the cgroup
version), or names the cgroup after it. The engine says whether it would start it again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from boreas_agent.drivers.docker_api import DockerApi, Refused

_BOUND = ("/etc/hostname", "/etc/hosts", "/etc/resolv.conf")
_FOLDER = re.compile(r"/containers/([0-9a-f]{64})/")
_GROUP = re.compile(r"(?:/|docker-)([0-9a-f]{64})(?:\.scope)?$")
_APP = ":own"
"""No app has this name: nothing that hangs for an app takes this question's place."""


def own_container(process: Path = Path("/proc/self")) -> str:
    """The id of the container of ``process``; empty where it is in none."""
    for file, find in (("mountinfo", _by_mounts), ("cgroup", _by_cgroups)):
        with suppress(OSError):
            lines = (process / file).read_text(encoding="utf-8", errors="replace").splitlines()
            if found := next(find(lines), ""):
                return found
    return ""


def _by_mounts(lines: list[str]) -> Iterator[str]:
    for fields in (line.split() for line in lines):
        if len(fields) > 4 and fields[4] in _BOUND and (found := _FOLDER.search(fields[3])):
            yield found[1]


def _by_cgroups(lines: list[str]) -> Iterator[str]:
    yield from (found[1] for line in lines if (found := _GROUP.search(line)))


async def stays_away(api: DockerApi, ref: str) -> str:
    """Why the container would not come back after a reboot; empty where it would. Raises Unavailable."""
    try:
        found = await api.read(_APP, "look at the agent's own container", lambda client: client.inspect_container(ref))
    except Refused:
        return ""  # another engine's, so not ours to judge
    policy = str(((found.get("HostConfig") or {}).get("RestartPolicy") or {}).get("Name") or "no")
    if policy in {"always", "unless-stopped"}:
        return ""
    name = str(found.get("Name", ref[:12])).lstrip("/")
    return (
        f"the agent's own container {name} has the restart policy {policy!r}: after a reboot or a crash the node would stay dark; "
        f"change it with: docker update --restart unless-stopped {name}"
    )
