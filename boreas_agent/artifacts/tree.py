"""Looks at what an unpacker has left, makes it the agent's own, and puts trees together. All of it blocks, so it runs in threads.

Nothing is taken on trust: a decoder that an archive has taken over could have written whatever it liked into the folder.
"""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from boreas_agent.errors import Missing
from boreas_agent.unpacker import links

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_libc = ctypes.CDLL(None, use_errno=True)


class Entry(Struct, frozen=True):
    """Something in a tree: its path in it, the folder it is in (open while it is looked at), and what it is."""

    path: links.Path
    folder: int
    status: os.stat_result

    @property
    def name(self) -> str:
        """In its folder."""
        return self.path[-1]


def adopt(root: Path, owner: int, most_entries: int) -> None:
    """Check everything below ``root`` and make it ours. Raises Missing where there is something that must not be, OSError."""
    shared: dict[tuple[int, int], list[int]] = {}
    soft: dict[links.Path, str] = {}
    for number, entry in enumerate(walk(root), 1):
        kind, status = stat.S_IFMT(entry.status.st_mode), entry.status
        if number > most_entries or status.st_uid != owner or kind not in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
            raise Missing(f"it unpacks to what must not be there: {links.shown(entry.path)}")
        if kind == stat.S_IFLNK:
            soft[entry.path] = os.readlink(entry.name, dir_fd=entry.folder)
        elif kind == stat.S_IFREG and status.st_nlink > 1:
            shared.setdefault((status.st_dev, status.st_ino), [status.st_nlink]).append(1)
    outside = any(counted[0] != sum(counted[1:]) for counted in shared.values())
    if outside:
        raise Missing("it unpacks to a file that is elsewhere, too")
    _check(soft)
    for entry in walk(root):
        _own(entry)
    os.chown(root, os.geteuid(), os.getegid())
    root.chmod(0o755)


def _own(entry: Entry) -> None:
    mode = entry.status.st_mode
    os.chown(entry.name, os.geteuid(), os.getegid(), dir_fd=entry.folder, follow_symlinks=False)
    if not stat.S_ISLNK(mode):
        os.chmod(entry.name, mode & 0o755 | (0o700 if stat.S_ISDIR(mode) else 0o600), dir_fd=entry.folder)


def check_links(root: Path) -> None:
    """Raises Missing where links lead out of the whole that trees have become together."""
    _check({entry.path: os.readlink(entry.name, dir_fd=entry.folder) for entry in walk(root) if stat.S_ISLNK(entry.status.st_mode)})


def _check(soft: dict[links.Path, str]) -> None:
    try:
        links.check(soft)
    except links.Escape as error:
        raise Missing(str(error)) from None


def walk(root: Path) -> Iterator[Entry]:
    """Everything below ``root``, folders before what is in them; no link is followed."""
    folder = os.open(root, _FOLDER)
    try:
        yield from _walk(folder, ())
    finally:
        os.close(folder)


def _walk(folder: int, path: links.Path) -> Iterator[Entry]:
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries]
    for name in names:
        entry = Entry((*path, name), folder, os.lstat(name, dir_fd=folder))
        yield entry
        if stat.S_ISDIR(entry.status.st_mode):
            inner = os.open(name, _FOLDER, dir_fd=folder)
            try:
                yield from _walk(inner, entry.path)
            finally:
                os.close(inner)


def folder_for(root: Path, place: str) -> Path:
    """The folder ``place`` below ``root``, made where it is missing. Raises Missing where something else is in the way."""
    here = root
    for part in place.split("/") if place else ():
        here /= part
        if here.is_symlink() or (here.exists() and not here.is_dir()):
            raise Missing(f"{place} is no folder: an artifact has brought something else of that name")
        if not here.exists():
            here.mkdir()
            here.chmod(0o755)
    return here


def merge(source: Path, target: Path) -> None:
    """Move what is in ``source`` into ``target``; of files in one place the one that comes later stays. Raises Missing, OSError."""
    for entry in list(os.scandir(source)):
        place = target / entry.name
        folders = entry.is_dir(follow_symlinks=False), place.is_dir() and not place.is_symlink()
        if all(folders):
            merge(Path(entry.path), place)
        elif any(folders) and os.path.lexists(place):
            raise Missing(f"{entry.name!r} is a folder in one artifact and something else in another")
        else:
            Path(entry.path).rename(place)


def sync_all(folder: Path) -> None:
    """Make everything on the file system of ``folder`` durable: for many files it is cheaper than one by one."""
    file = os.open(folder, _FOLDER)
    try:
        if _libc.syncfs(file):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(folder))
    finally:
        os.close(file)


def sync(folder: Path) -> None:
    """Make the names in ``folder`` durable."""
    file = os.open(folder, _FOLDER)
    try:
        os.fsync(file)
    finally:
        os.close(file)
