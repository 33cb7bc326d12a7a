"""Writes what an archive holds below the current folder, and nowhere else.

Every part of every path is opened by itself, relative to its parent and without following links, and links come last: while
anything is written there is none that could be followed.
"""

from __future__ import annotations

import contextlib
import os
import stat

from boreas_agent.unpacker import links
from boreas_agent.unpacker.links import shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from boreas_agent.unpacker.links import Path

MOST_PARTS = 100
MOST_TARGET = 1024
RATIO_FROM = 16 * 1024 * 1024  # below this it does not matter how well something was packed
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LATEST = 2**32


class Refused(Exception):
    """The archive is not one that is unpacked; the message completes 'cannot unpack it: …'. ``large``: for want of room."""

    def __init__(self, message: str, *, large: bool = False) -> None:
        super().__init__(message)
        self.large = large


class Tree:
    """The folder that is filled, and what may still go into it."""

    def __init__(self, packed: int, strip: int, most_bytes: int, most_entries: int, ratio: int) -> None:
        self._root = os.open(".", _FOLDER)
        self._strip = strip
        self._most_bytes = most_bytes
        self._most_entries = most_entries
        self._packed = max(packed, 1)
        self._ratio = ratio
        self._hard: dict[Path, Path] = {}
        self._soft: dict[Path, str] = {}
        self.entries = 0
        self.bytes = 0

    def path(self, name: str) -> Path:
        """A name of the archive as parts, without those that are to be stripped; empty for what falls away. Raises Refused."""
        if name.startswith("/"):
            raise Refused(f"{name[:200]!r} is an absolute path")
        if "\0" in name:
            raise Refused(f"the name {name[:200]!r} holds NUL")
        parts = tuple(part for part in name.split("/") if part not in ("", "."))
        if ".." in parts:
            raise Refused(f"{name[:200]!r} leads out of the archive")
        if len(parts) > MOST_PARTS:
            raise Refused(f"{name[:200]!r} is more than {MOST_PARTS} folders deep")
        return parts[self._strip :]

    def check_count(self, entries: int) -> None:
        """Raises Refused where there are too many."""
        if entries > self._most_entries:
            raise Refused(f"it holds more than {self._most_entries} files and folders")

    def add_folder(self, path: Path, mode: int) -> None:
        """A folder that may be there already."""
        folder = self._open(path)
        try:
            os.fchmod(folder, mode & 0o755 | 0o700)
        finally:
            os.close(folder)

    def add_file(self, path: Path, mode: int, modified: float, chunks: Iterable[bytes]) -> None:
        """A file, in the place of one that came before it under the same name, as ``tar`` does."""
        self._count()
        folder = self._open(path[:-1])
        try:
            with contextlib.suppress(FileNotFoundError):
                if stat.S_ISDIR(os.lstat(path[-1], dir_fd=folder).st_mode):
                    raise Refused(f"{shown(path)} is both a folder and a file")
                os.unlink(path[-1], dir_fd=folder)
            file = os.open(path[-1], _NEW, 0o600, dir_fd=folder)
            try:
                for chunk in chunks:
                    self._write(file, chunk)
                os.fchmod(file, mode & 0o755 | 0o600)
                at = min(max(modified, 0), _LATEST)
                os.utime(file, (at, at))
            finally:
                os.close(file)
        finally:
            os.close(folder)

    def add_hard_link(self, path: Path, target: Path) -> None:
        """Made at the end."""
        self._count()
        self._hard[path] = target

    def add_soft_link(self, path: Path, target: str) -> None:
        """Made at the end, if it stays inside."""
        self._count()
        if len(target) > MOST_TARGET or "\0" in target:
            raise Refused(f"the link {shown(path)} has an impossible target")
        self._soft[path] = target

    def finish(self) -> None:
        """Make the links: first those to files, while there is no other that their way could lead through."""
        for path, target in self._hard.items():
            self._link(path, target)
        try:
            links.check(self._soft)
        except links.Escape as error:
            raise Refused(str(error)) from None
        for path, soft in self._soft.items():
            folder = self._open(path[:-1])
            try:
                os.symlink(soft, path[-1], dir_fd=folder)
            except FileExistsError:
                raise Refused(f"{shown(path)} is both a link and something else") from None
            finally:
                os.close(folder)

    def _link(self, path: Path, target: Path) -> None:
        if not target:
            raise Refused(f"the hard link {shown(path)} leads to what is not unpacked")
        folder, source = self._open(path[:-1]), -1
        try:
            source = self._open(target[:-1], make=False)
            if not stat.S_ISREG(os.lstat(target[-1], dir_fd=source).st_mode):
                raise Refused(f"the hard link {shown(path)} does not lead to a file")
            os.link(target[-1], path[-1], src_dir_fd=source, dst_dir_fd=folder, follow_symlinks=False)
        except FileExistsError:
            raise Refused(f"{shown(path)} is both a link and something else") from None
        except FileNotFoundError:
            raise Refused(f"the hard link {shown(path)} leads to what is not in the archive") from None
        finally:
            os.close(folder)
            if source >= 0:
                os.close(source)

    def _open(self, path: Path, *, make: bool = True) -> int:
        """The folder at ``path``, made where it is missing; the caller closes it."""
        here = os.dup(self._root)
        try:
            for part in path:
                inner = self._enter(here, part, path, make=make)
                os.close(here)
                here = inner
        except BaseException:
            os.close(here)
            raise
        return here

    def _enter(self, here: int, part: str, path: Path, *, make: bool) -> int:
        try:
            return os.open(part, _FOLDER, dir_fd=here)
        except FileNotFoundError:
            if not make:
                raise
        except NotADirectoryError:
            raise Refused(f"a part of {shown(path)} is both a folder and something else") from None
        self._count()
        os.mkdir(part, 0o755, dir_fd=here)
        return os.open(part, _FOLDER, dir_fd=here)

    def _count(self) -> None:
        self.entries += 1
        self.check_count(self.entries)

    def _write(self, file: int, chunk: bytes) -> None:
        self.bytes += len(chunk)
        if self.bytes > self._most_bytes:
            raise Refused(f"it unpacks to more than {self._most_bytes} bytes", large=True)
        if self.bytes > max(RATIO_FROM, self._packed * self._ratio):
            raise Refused(f"it unpacks to more than {self._ratio} times its size")
        view = memoryview(chunk)
        while view:
            view = view[os.write(file, view) :]
