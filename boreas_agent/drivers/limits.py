"""The cgroups that limit a run: which of them this machine has, what to write there, what is left of them.

A capability is taken from whichever hierarchy offers it: v2 where it is enabled there, else v1's own. The agent prepares what
a group's parents need; the group itself is made, entered and deleted with each run by the keeper (``keeper.child``).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import TypedDict

from msgspec import Struct

from boreas_agent.drivers import cgroup
from boreas_agent.errors import Terminal
from boreas_agent.model import InstanceName
from boreas_agent.spec import Resources

_FIELDS: Mapping[str, str] = {"memory": "memory_limit", "cpu": "cpu_limit", "cpuset": "cpu_set", "pids": "pids_limit"}
"""Which field of ``resources`` needs which controller."""
_PERIOD = 100_000  # microseconds over which the share of processors is dealt out; the kernel's default
_LEAST_QUOTA = 1000
_log = logging.getLogger(__name__)


class Group(TypedDict):
    """One group of a run, as the keeper gets it: ``path`` without the run's number, and the files to write before it is entered.

    ``tree``: it lies in the hierarchy by which the run's process tree is found, so it takes the place of the group made for that.
    """

    path: str
    files: dict[str, str]
    tree: bool


class Place(Struct, frozen=True):
    """Where a controller is: the root of its hierarchy, and whether that is v2."""

    root: Path
    unified: bool


def find(mounts: Path = Path("/proc/self/mounts")) -> Mapping[str, Place]:
    """The controllers that can be used here, by name."""
    rows = [line.split() for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines()]
    found: dict[str, Place] = {}
    for root in (Path(row[1]) for row in rows if row[2] == "cgroup2"):
        with suppress(OSError):
            offered = (root / "cgroup.controllers").read_text(encoding="ascii").split()
            found |= {name: Place(root, unified=True) for name in _FIELDS if name in offered and cgroup.usable(root)}
    for row in (row for row in rows if row[2] == "cgroup"):
        for name in _FIELDS.keys() & set(row[3].split(",")):
            if cgroup.usable(Path(row[1])):
                found.setdefault(name, Place(Path(row[1]), unified=False))
    return found


class Limits:
    """For one node identity. ``tree``: the root of the hierarchy by which process trees are found; ``required``: no start without."""

    def __init__(self, places: Mapping[str, Place], tree: Path | None, identity: str, *, required: bool = True) -> None:
        self._places = places
        self._tree = tree
        self._identity = identity
        self._required = required

    def open(self) -> None:
        """Delete what a keeper that was killed left behind."""
        for root in self._roots():
            cgroup.sweep(self._parent(root))

    def groups(self, name: InstanceName, resources: Resources) -> list[Group]:
        """The groups that a run needs, their parents ready for them; reads and writes cgroup files. Raises Terminal."""
        groups: dict[Path, Group] = {}
        for controller in [controller for controller, field in _FIELDS.items() if getattr(resources, field) is not None]:
            place = self._places.get(controller)
            if place is None:
                self._go_without(name, controller)
                continue
            try:
                parent = self._ready(place, controller)
            except OSError as error:
                self._go_without(name, controller, f" ({error.filename}: {error.strerror})")
                continue
            group = groups.setdefault(place.root, Group(path=str(parent / f"run-{name}"), files={}, tree=place.root == self._tree))
            group["files"] |= _files(controller, resources, parent, unified=place.unified)
        return list(groups.values())

    def remove(self, name: InstanceName) -> None:
        """Delete the groups of runs that have ended, and those above them that are empty."""
        for root in self._roots():
            parent = self._parent(root)
            for path in parent.glob(f"run-{name}.*"):
                if path.name.removeprefix(f"run-{name}.").isdecimal():
                    cgroup.remove(path)
            with suppress(OSError):
                parent.rmdir()
                parent.parent.rmdir()

    def _roots(self) -> Iterator[Path]:
        yield from {place.root for place in self._places.values()}

    def _parent(self, root: Path) -> Path:
        return cgroup.path_of(root, self._identity, "x").parent

    def _ready(self, place: Place, controller: str) -> Path:
        """The folder of the node's groups in which the controller works. Raises OSError."""
        parent = self._parent(place.root)
        parent.mkdir(parents=True, exist_ok=True)
        above = (place.root, parent.parent, parent)
        if place.unified:
            for folder in above:
                switch = folder / "cgroup.subtree_control"
                if controller not in switch.read_text(encoding="ascii").split():
                    switch.write_text(f"+{controller}", encoding="ascii")
        elif controller == "cpuset":  # without processors and memory nobody can enter
            for folder, inner in pairwise(above):
                for file in ("cpuset.cpus", "cpuset.mems"):
                    if not (inner / file).read_text(encoding="ascii").strip():
                        (inner / file).write_text((folder / file).read_text(encoding="ascii"), encoding="ascii")
        return parent

    def _go_without(self, name: InstanceName, controller: str, why: str = "") -> None:
        lacking = f"{_FIELDS[controller]} needs the cgroup controller {controller!r}, which this machine does not offer{why}"
        if self._required:
            raise Terminal(
                f"cannot start {name}: {lacking}; leave it out, or set agent.process.require_cgroups: false to run without that limit"
            )
        _log.warning("running without a limit", extra={"instance": str(name), "error": lacking})


def _files(controller: str, resources: Resources, parent: Path, *, unified: bool) -> dict[str, str]:
    """What to write where, in this order."""
    match controller:
        case "memory":
            names = ("memory.max",) if unified else ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
            files = dict.fromkeys((name for name in names if (parent / name).exists()), str(resources.memory))
            return files | ({"memory.swap.max": "0"} if unified and (parent / "memory.swap.max").exists() else {})
        case "cpu":
            quota = max(_LEAST_QUOTA, round((resources.cpus or 0.0) * _PERIOD))
            return {"cpu.max": f"{quota} {_PERIOD}"} if unified else {"cpu.cfs_period_us": str(_PERIOD), "cpu.cfs_quota_us": str(quota)}
        case "cpuset":
            mems = {} if unified else {"cpuset.mems": (parent / "cpuset.mems").read_text(encoding="ascii").strip()}
            return {**mems, "cpuset.cpus": resources.cpu_set or ""}
        case _:
            return {"pids.max": str(resources.pids_limit)}
