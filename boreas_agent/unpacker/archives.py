"""Reads archives: what kind it is, and from the first entry to the last into a :class:`Tree`."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import stat
import tarfile
import zipfile
import zlib

from boreas_agent.unpacker.links import shown
from boreas_agent.unpacker.tree import MOST_TARGET, Refused, Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO, Any, Self

CHUNK = 256 * 1024
MOST_WINDOW = 128 * 1024 * 1024  # what a zstd archive may ask for; the tool's own default
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_ZSTD = b"\x28\xb5\x2f\xfd"
BROKEN = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, gzip.BadGzipFile)


def unpack(archive: IO[bytes], kind: str, tree: Tree) -> None:
    """All of it. Raises Refused, OSError, and what is in ``BROKEN``."""
    start = os.pread(archive.fileno(), 6, 0)
    if kind == "auto":
        kind = "zip" if start.startswith(_ZIP) else "tar"
    if kind == "zip":
        _unpack_zip(archive, tree)
    elif start.startswith(_ZIP):
        raise Refused("it is a zip archive, not tar")
    else:
        _unpack_tar(_unpacked(archive, start), tree)
    tree.finish()


# --- tar


def _unpacked(archive: IO[bytes], start: bytes) -> Any:
    """The bytes of the tar archive itself."""
    if start.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=archive)
    if start.startswith(b"BZh"):
        return bz2.BZ2File(archive)
    if start.startswith(b"\xfd7zXZ\0"):
        return lzma.LZMAFile(archive)
    if start.startswith(_ZSTD):
        import zstandard  # noqa: PLC0415  # only where it is needed, and found, see ``program``

        return zstandard.ZstdDecompressor(max_window_size=MOST_WINDOW).stream_reader(archive, read_across_frames=True)
    return archive


class _Entry(tarfile.TarInfo):
    """Python takes a damaged header for the end of the archive; here it is a fault."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> Self:
        try:
            found = super().fromtarfile(tarfile_)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError(f"damaged at byte {tarfile_.offset}: {error}") from error
        if found.size < 0:
            raise tarfile.ReadError("an entry has a negative size")
        return found


def _unpack_tar(content: IO[bytes], tree: Tree) -> None:
    with tarfile.open(fileobj=content, mode="r|", bufsize=CHUNK, tarinfo=_Entry, errorlevel=2) as archive:
        seen = 0
        while (entry := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # it would remember all of them
            seen += 1
            tree.check_count(seen)
            _take(archive, entry, tree)


def _take(archive: tarfile.TarFile, entry: tarfile.TarInfo, tree: Tree) -> None:
    path = tree.path(entry.name)
    if entry.isdir():
        tree.add_folder(path, entry.mode)
    elif not (entry.isreg() or entry.issym() or entry.islnk()):
        raise Refused(f"{shown((entry.name,))} is a {_KINDS.get(entry.type, 'thing of a kind that is not known')}")
    elif not path:
        return  # stripped
    elif entry.issym():
        tree.add_soft_link(path, entry.linkname)
    elif entry.islnk():
        tree.add_hard_link(path, tree.path(entry.linkname))
    else:
        content = archive.extractfile(entry)
        assert content is not None
        tree.add_file(path, entry.mode, entry.mtime, _whole(content, entry.size, path))


_KINDS = {tarfile.CHRTYPE: "device", tarfile.BLKTYPE: "device", tarfile.FIFOTYPE: "named pipe"}


def _whole(content: IO[bytes], size: int, path: tuple[str, ...]) -> Iterator[bytes]:
    left = size
    while left:
        chunk = content.read(min(CHUNK, left))
        if not chunk:
            raise Refused(f"it ends in the middle of {shown(path)}")
        left -= len(chunk)
        yield chunk


# --- zip


def _unpack_zip(file: IO[bytes], tree: Tree) -> None:
    with zipfile.ZipFile(file) as archive:
        tree.check_count(len(archive.filelist))
        for entry in archive.filelist:
            _take_zipped(archive, entry, tree)


def _take_zipped(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, tree: Tree) -> None:
    if entry.flag_bits & 1:
        raise Refused(f"{shown((entry.filename,))} is encrypted")
    path = tree.path(entry.filename)
    mode = entry.external_attr >> 16 if entry.create_system == 3 else 0
    kind = stat.S_IFMT(mode)
    if entry.is_dir():
        tree.add_folder(path, mode or 0o755)
    elif kind not in (0, stat.S_IFREG, stat.S_IFLNK):
        raise Refused(f"{shown((entry.filename,))} is a device, a named pipe or something else that is not unpacked")
    elif not path:
        return
    elif kind == stat.S_IFLNK:
        with archive.open(entry) as content:
            tree.add_soft_link(path, os.fsdecode(content.read(MOST_TARGET + 1)))
    else:
        with archive.open(entry) as content:
            tree.add_file(path, mode & 0o777 or 0o644, 0, iter(lambda: content.read(CHUNK), b""))
