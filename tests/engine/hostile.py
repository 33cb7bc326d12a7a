"""Archives that mean harm, or are broken, each made here; beside each a part of what is said about it, None where it is harmless."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

OUT = "leads out of the archive"


@dataclass(frozen=True)
class Hostile:
    name: str
    content: bytes
    said: str | None


def corpus() -> list[Hostile]:
    """All of them."""
    return [Hostile(name, content, said) for name, (content, said) in {**_tars(), **_zips()}.items()]


# --- tar


class _Tar:
    """Entries one after the other, written as they are told."""

    def __init__(self, format: int = tarfile.PAX_FORMAT) -> None:  # noqa: A002
        self.out = io.BytesIO()
        self._tar = tarfile.TarFile(fileobj=self.out, mode="w", format=format)

    def add(self, name: str, content: bytes = b"", **how: Any) -> _Tar:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        for key, value in how.items():
            setattr(entry, key, value)
        self._tar.addfile(entry, io.BytesIO(content) if content else None)
        return self

    def link(self, name: str, target: str) -> _Tar:
        return self.add(name, type=tarfile.SYMTYPE, linkname=target)

    def hard(self, name: str, target: str) -> _Tar:
        return self.add(name, type=tarfile.LNKTYPE, linkname=target)

    def folder(self, name: str, mode: int = 0o755) -> _Tar:
        return self.add(name, type=tarfile.DIRTYPE, mode=mode)

    def done(self) -> bytes:
        self._tar.close()
        return self.out.getvalue()


def _header(name: bytes, size: bytes, kind: bytes = b"0") -> bytes:
    """A header as nobody's library would write it."""
    block = bytearray(512)
    block[0 : len(name)] = name
    block[100:108] = b"0000644\0"
    block[108:116] = block[116:124] = b"0000000\0"
    block[124:136] = size
    block[136:148] = b"00000000000\0"
    block[156:157] = kind
    block[257:265] = b"ustar\x0000"
    block[148:156] = b"        "
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def _long_way() -> bytes:
    """CVE-2025-4517: a way of links so long that resolving it in one go is given up half way, and then out."""
    tar, step, way = _Tar(), "d" * 240, ""
    for letter in "abcdefghijklmnop":
        tar.folder(f"{way}{step}").link(f"{way}{letter}", step)
        way += f"{step}/"
    last = "a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p/" + "l" * 250
    tar.link(last, "../" * 16).link("escape", f"{last}/../../outside")
    return tar.hard("file", "escape/target").add("file", b"hacked").done()


def _tars() -> dict[str, tuple[bytes, str | None]]:
    plain = _Tar().add("file", b"content").done()
    many = _Tar()
    for number in range(2100):
        many.add(f"{number}")
    deep = _Tar().add("/".join("d" * 120), b"x").done()
    files: dict[str, tuple[bytes, str | None]] = {
        "absolute.tar": (_Tar().add("/tmp/boreas-hostile", b"x").done(), "is an absolute path"),
        "absolute-folder.tar": (_Tar().folder("//tmp/boreas-hostile").done(), "is an absolute path"),
        "dotdot.tar": (_Tar().add("../escape", b"x").done(), OUT),
        "dotdot-inside.tar": (_Tar().add("a/../../escape", b"x").done(), OUT),
        "dotdot-folder.tar": (_Tar().folder("..", 0o777).done(), OUT),
        "dotdot-in-pax.tar": (_Tar().add("x", b"x", pax_headers={"path": "../escape"}).done(), OUT),
        "absolute-link.tar": (_Tar().link("l", "/etc").done(), "leads to an absolute path"),
        "through-absolute-link.tar": (_Tar().link("l", "/tmp").add("l/boreas-hostile", b"x").done(), "leads to an absolute path"),
        "through-outer-link.tar": (_Tar().link("l", "..").add("l/escape", b"x").done(), OUT),
        "through-inner-link.tar": (_Tar().folder("d").link("l", "d").add("l/f", b"x").done(), "both a link and something else"),
        "link-in-pax.tar": (
            _Tar().link("l", "x").add("y", pax_headers={"linkpath": "/etc/passwd"}, type=tarfile.SYMTYPE).done(),
            "absolute",
        ),
        "link-out-by-link.tar": (
            _Tar().folder("a/b").link("a/b/up", "../..").link("l", "a/b/up/../escape").done(),
            "leads out of the archive",
        ),
        "link-chain-out.tar": (_Tar().link("a", "b/..").link("b", "c/..").link("c", ".").done(), OUT),
        "link-loop.tar": (_Tar().link("a", "b").link("b", "a").done(), "too many others"),
        "link-as-root.tar": (_Tar().link(".", "/etc").add("passwd", b"x").done(), None),
        "link-then-file.tar": (_Tar().link("x", "y").add("x", b"1").done(), "both a link and something else"),
        "file-then-link-then-file.tar": (_Tar().add("x", b"1").link("x", "/etc/passwd").add("x", b"2").done(), "absolute"),
        "link-target-of-a-kilometre.tar": (_Tar().link("l", "a/" * 1000).done(), "impossible target"),
        "long-way.tar": (_long_way(), "leads to what is not in the archive"),
        "hard-link-absolute.tar": (_Tar().hard("h", "/etc/passwd").done(), "is an absolute path"),
        "hard-link-dotdot.tar": (_Tar().hard("h", "../../../etc/passwd").done(), OUT),
        "hard-link-to-link.tar": (_Tar().link("l", "f").add("f", b"x").hard("h", "l").done(), "leads to what is not in the archive"),
        "hard-link-through-link.tar": (_Tar().link("l", "..").hard("h", "l/escape").done(), "leads to what is not in the archive"),
        "hard-link-to-nothing.tar": (_Tar().hard("h", "f").done(), "leads to what is not in the archive"),
        "hard-link-to-folder.tar": (_Tar().folder("d").hard("h", "d").done(), "does not lead to a file"),
        "hard-link-to-stripped.tar": (_Tar().hard("h", ".").done(), "leads to what is not unpacked"),
        "device.tar": (_Tar().add("d", type=tarfile.CHRTYPE, devmajor=1, devminor=3).done(), "is a device"),
        "disk.tar": (_Tar().add("d", type=tarfile.BLKTYPE, devmajor=8, devminor=0).done(), "is a device"),
        "pipe.tar": (_Tar().add("p", type=tarfile.FIFOTYPE).done(), "is a named pipe"),
        "unknown-kind.tar": (_Tar().add("z", type=b"Z").done(), "a kind that is not known"),
        "setuid.tar": (_Tar().add("su", b"x", mode=0o6777).folder("d", 0o7777).done(), None),
        "unreadable.tar": (_Tar().add("d/f", b"x", mode=0).folder("d", 0).done(), None),
        "others-may-write.tar": (_Tar().add("f", b"x", mode=0o666).folder("d", 0o777).done(), None),
        "owned-by-somebody.tar": (_Tar().add("f", b"x", uid=1000, gid=1000, uname="daemon").done(), None),
        "twice.tar": (_Tar().add("f", b"1", mode=0o400).add("f", b"22").done(), None),
        "file-and-folder.tar": (_Tar().add("x", b"1").add("x/y", b"2").done(), "both a folder and something else"),
        "folder-and-file.tar": (_Tar().folder("x").add("x", b"2").done(), "both a folder and a file"),
        "many.tar": (many.done(), "more than 2000 files and folders"),
        "many-folders.tar": (_folders(), "more than 2000 files and folders"),
        "deep.tar": (deep, "folders deep"),
        "long-name.tar": (_Tar().add("n" * 300, b"x").done(), "File name too long"),
        "large.tar": (_Tar().add("f", os.urandom(3 * 1024 * 1024)).done(), "more than 2097152 bytes"),
        "bomb.tar.gz": (gzip.compress(_Tar().add("f", bytes(17_500_000)).done()), "times its size"),
        "bomb.tar.xz": (lzma.compress(_Tar().add("f", bytes(17_500_000)).done()), "times its size"),
        "bomb.tar.bz2": (bz2.compress(_Tar().add("f", bytes(17_500_000)).done()), "times its size"),
        "sparse-bomb.tar": (_sparse(), "more than 2097152 bytes"),
        "negative-size.tar": (_header(b"f", b"\xff" * 12) + bytes(1024), "damaged"),
        "negative-pax.tar": (_header(b"x", b"\xff" * 12, b"x") + bytes(1024), "damaged"),
        "endless-size.tar": (_header(b"f", b"\x80" + b"\x7f" * 11) + b"x" * 512, ""),
        "endless-name.tar": (_header(b"././@LongLink", b"\x80" + b"\x7f" * 11, b"L") + b"x" * 512, ""),
        "nul-in-name.tar": (_Tar().add("x", b"x", pax_headers={"path": "a\0b"}).done(), "holds NUL"),
        "cut-off.tar": (_Tar().add("f", b"x" * 5000).done()[:2000], "damaged"),
        "cut-off.tar.gz": (gzip.compress(_Tar().add("f", os.urandom(50000)).done())[:20000], "damaged"),
        "damaged-header.tar": (plain[:1024] + b"\x01" * 512 + plain[1024:], "damaged"),
        "damaged.tar.gz": (_damaged(gzip.compress(_Tar().add("f", os.urandom(50000)).done())), "damaged"),
        "damaged.tar.xz": (_damaged(lzma.compress(_Tar().add("f", os.urandom(50000)).done())), "damaged"),
        "greedy.tar.xz": (_greedy_xz(), ""),
        "greedy.tar.zst": (b"\x28\xb5\x2f\xfd\x00\xa8" + bytes(100), "damaged"),
        "nothing.tar": (b"", "damaged"),
        "noise.tar": (os.urandom(10000), "damaged"),
        "marker.tar": (_Tar().add(".artifacts.json", b"{}").done(), "the agent's own"),
        "terminal.tar": (_Tar().add("\x1b]0;owned\x07", type=tarfile.FIFOTYPE).done(), "'\\x1b]0;owned\\x07' is a named pipe"),
    }
    return files


def _folders() -> bytes:
    tar = _Tar()
    for number in range(40):
        tar.add("/".join(f"{number}-{part}" for part in range(60)), b"x")
    return tar.done()


def _sparse() -> bytes:
    """GNU's old form: a terabyte of which almost all is a hole."""
    block = bytearray(_header(b"f", b"%011o\0" % 512, b"S"))
    block[257:265] = b"ustar  \0"
    block[386:410] = b"%011o\0%011o\0" % (0, 512)
    block[483:495] = b"\x80" + (1 << 40).to_bytes(11, "big")
    block[148:156] = b"        "
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + bytes(512) + bytes(1024)


def _damaged(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes(byte ^ 0xFF for byte in content[middle : middle + 200]) + content[middle + 200 :]


def _greedy_xz() -> bytes:
    """It asks for a dictionary of 1.5 GiB."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 20}]
    packed = bytearray(lzma.compress(_Tar().add("f", b"x").done(), filters=filters))
    at = packed.index(bytes([0x21, 0x01]), 12)
    packed[at + 2] = 39
    header = packed[12 : 12 + (packed[12] + 1) * 4 - 4]
    packed[12 + len(header) : 16 + len(header)] = struct.pack("<I", zlib.crc32(header))
    return bytes(packed)


# --- zip


def _zip(*entries: tuple[str, bytes, int], packed: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(out, "w", packed) as archive:  # of names that come twice
        for name, content, mode in entries:
            entry = zipfile.ZipInfo(name)
            entry.create_system, entry.external_attr, entry.compress_type = 3, mode << 16, packed
            archive.writestr(entry, content)
    return out.getvalue()


_FILE, _LINK = stat.S_IFREG | 0o644, stat.S_IFLNK | 0o777


def _quoted(files: int = 40) -> bytes:
    """After David Fifield: all entries share one body, so that a small archive is a large one."""
    body = _zip(("f", bytes(1_000_000), _FILE))
    end = body.rindex(b"PK\x05\x06")
    start = struct.unpack("<I", body[end + 16 : end + 20])[0]
    one = body[start:end]
    entries = b"".join(one[:46] + b"%c" % (97 + number % 26) + one[47:] for number in range(files))
    tail = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, files, files, len(entries), start, 0)
    return body[:start] + entries + tail


def _patched(content: bytes, change: Callable[[bytearray, int, int], None]) -> bytes:
    """``change`` gets the archive and where its first local and central headers are."""
    data = bytearray(content)
    change(data, 0, data.index(b"PK\x01\x02"))
    return bytes(data)


def _lie_about_size(data: bytearray, local: int, central: int) -> None:
    data[local + 22 : local + 26] = data[central + 24 : central + 28] = struct.pack("<I", 10)


def _break_crc(data: bytearray, local: int, central: int) -> None:
    data[local + 14 : local + 18] = data[central + 16 : central + 20] = b"\x00\x00\x00\x01"


def _encrypt(data: bytearray, local: int, central: int) -> None:
    data[local + 6] |= 1
    data[central + 8] |= 1


def _zips() -> dict[str, tuple[bytes, str | None]]:
    plain = _zip(("file", b"content" * 100, _FILE))
    return {
        "absolute.zip": (_zip(("/tmp/boreas-hostile", b"x", _FILE)), "is an absolute path"),
        "dotdot.zip": (_zip(("../escape", b"x", _FILE)), OUT),
        "dotdot-folder.zip": (_zip(("a/../../d/", b"", 0)), OUT),
        "backslashes.zip": (_zip(("..\\..\\escape", b"x", _FILE)), None),
        "absolute-link.zip": (_zip(("l", b"/etc/passwd", _LINK)), "leads to an absolute path"),
        "outer-link.zip": (_zip(("l", b"../escape", _LINK)), OUT),
        "through-link.zip": (_zip(("l", b"..", _LINK), ("l/escape", b"x", _FILE)), OUT),
        "link-then-file.zip": (_zip(("l", b"f", _LINK), ("l", b"x", _FILE)), "both a link and something else"),
        "link-of-a-megabyte.zip": (_zip(("l", b"a" * 1_000_000, _LINK)), "impossible target"),
        "device.zip": (_zip(("d", b"", stat.S_IFCHR | 0o666)), "that is not unpacked"),
        "pipe.zip": (_zip(("p", b"", stat.S_IFIFO | 0o666)), "that is not unpacked"),
        "socket.zip": (_zip(("s", b"", stat.S_IFSOCK | 0o666)), "that is not unpacked"),
        "setuid.zip": (_zip(("su", b"x", stat.S_IFREG | 0o6777)), None),
        "twice.zip": (_zip(("f", b"1", _FILE), ("f", b"22", _FILE)), None),
        "file-and-folder.zip": (_zip(("x", b"1", _FILE), ("x/y", b"2", _FILE)), "both a folder and something else"),
        "many.zip": (_zip(*((f"{number}", b"", _FILE) for number in range(2100))), "more than 2000"),
        "large.zip": (_zip(("f", os.urandom(3 * 1024 * 1024), _FILE), packed=zipfile.ZIP_STORED), "more than 2097152 bytes"),
        "bomb.zip": (_zip(("f", bytes(17_500_000), _FILE)), "times its size"),
        "quoted-bomb.zip": (_quoted(), ""),
        "lying-size.zip": (_patched(plain, _lie_about_size), "damaged"),
        "broken-crc.zip": (_patched(plain, _break_crc), "damaged"),
        "encrypted.zip": (_patched(plain, _encrypt), "is encrypted"),
        "cut-off.zip": (plain[:-30], "damaged"),
        "damaged.zip": (_damaged(_zip(("f", os.urandom(50000), _FILE))), "damaged"),
        "nothing.zip": (b"PK\x05\x06" + bytes(18), None),
        "marker.zip": (_zip((".artifacts.json", b"{}", _FILE)), "the agent's own"),
    }
