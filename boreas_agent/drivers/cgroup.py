"""A cgroup for each instance, where the machine allows it: how a whole process tree is found and ended.

What a hierarchy can do is seen from its files, not from its version: beside v1 controllers there may be a v2
hierarchy that has none, but does have ``cgroup.kill``. Nothing is limited here, so any hierarchy will do.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from boreas_agent.drivers import procfs

_SLICE = "boreas.slice"
_TRIES, _MOMENT = 25, 0.002
_V1_PREFERENCE = ("freezer", "pids", "name=systemd")


def find_root(mounts: Path = Path("/proc/self/mounts")) -> Path | None:
    """The hierarchy to use: v2 where there is one, else a v1 one, best with a freezer; None where we may not."""
    return next((root for root in _hierarchies(mounts.read_text(encoding="utf-8", errors="replace")) if usable(root)), None)


def _hierarchies(mounts: str) -> Iterator[Path]:
    rows = [line.split() for line in mounts.splitlines()]
    yield from (Path(row[1]) for row in rows if row[2] == "cgroup2")
    for controller in _V1_PREFERENCE:
        yield from (Path(row[1]) for row in rows if row[2] == "cgroup" and controller in row[3].split(","))


def usable(root: Path) -> bool:
    """Groups can be made here, and processes moved out of the root."""
    return os.access(root, os.W_OK) and os.access(root / "cgroup.procs", os.W_OK) and not _read_only(root)


def _read_only(root: Path) -> bool:
    return bool(os.statvfs(root).f_flag & os.ST_RDONLY)


def path_of(root: Path, identity: str, name: str) -> Path:
    """Where the group called ``name`` of the node ``identity`` belongs."""
    return root / _SLICE / identity[:8] / name


def create(path: Path) -> Path | None:
    """Make the group; None where that cannot be done, and things must go without."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return path


def members(path: Path) -> tuple[int, ...]:
    """The pids in the group and in groups that its processes made below it."""
    found: list[int] = []
    for folder, _, _ in os.walk(path):
        with suppress(OSError):
            found += [int(pid) for pid in (Path(folder) / "cgroup.procs").read_text(encoding="ascii").split()]
    return tuple(found)


def kill(path: Path) -> None:
    """Send SIGKILL to all of the group. Without ``cgroup.kill`` a fork may escape: call it until the group is empty."""
    if (path / "cgroup.kill").exists():
        with suppress(OSError):
            (path / "cgroup.kill").write_text("1", encoding="ascii")
        return
    with _frozen(path):
        for pid in members(path):
            found = procfs.stat(pid)
            if found and pid in members(path):
                procfs.send(found, signal.SIGKILL)


@contextmanager
def _frozen(path: Path) -> Iterator[None]:
    """Frozen, the group cannot fork; SIGKILL takes effect when it thaws (v1) or at once (v2)."""
    v1, v2 = path / "freezer.state", path / "cgroup.freeze"
    file, on, off = (v1, "FROZEN", "THAWED") if v1.exists() else (v2, "1", "0")
    with suppress(OSError):
        file.write_text(on, encoding="ascii")
    try:
        yield
    finally:
        with suppress(OSError):
            file.write_text(off, encoding="ascii")


def sweep(parent: Path) -> None:
    """Delete the groups below that a killed keeper left behind; one in use stays."""
    with suppress(OSError):
        for entry in tuple(parent.iterdir()):
            with suppress(OSError):
                entry.rmdir()


def _rmdir(folder: Path) -> None:
    """A group whose last process has just died is in use for another moment."""
    for _ in range(_TRIES):
        try:
            folder.rmdir()
        except OSError as error:
            if error.errno != errno.EBUSY or members(folder):
                return
            time.sleep(_MOMENT)
        else:
            return


def remove(path: Path) -> None:
    """Delete the group and, once the last of the node is gone, the groups above it. A group in use stays."""
    for folder, _, _ in os.walk(path, topdown=False):
        _rmdir(Path(folder))
    for above in path.parents:
        with suppress(OSError):
            above.rmdir()
        if above.name == _SLICE:
            return
