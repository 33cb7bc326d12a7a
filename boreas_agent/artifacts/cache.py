"""What was fetched, under its SHA-256. All of it touches the disk, so it runs in threads.

    cache/sha256/DIGEST     whole and verified when it got its name
    cache/partial/NAME      on its way; what an agent that was killed has left is gone on with

The first release that uses an entry shares its inode, so that nothing is on the disk twice; any further one gets a copy. Since an app
may write to what is in its release, an entry is verified anew before every use but the one that it was fetched for.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from boreas_agent.artifacts.limits import Limits
from boreas_agent.errors import Missing, Transient

CHUNK = 1024 * 1024
ROOM_EVERY = 4 * CHUNK
IDLE_SECONDS = 7 * 86400.0
"""Nothing that nobody needs stays longer than this after its last use."""
PARTIAL_SECONDS = 86400.0


class Cache:
    """``folder`` is on the same file system as the releases."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.folder = folder
        self._entries = folder / "sha256"
        self._partial = folder / "partial"
        self._limits = limits
        self._linking = threading.Lock()
        self._used: Counter[str] = Counter()

    def prepare(self) -> None:
        """Have the folders. Raises OSError."""
        for folder in (self._entries.parent, self._entries, self._partial):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    @contextmanager
    def using(self, digests: Collection[str]) -> Iterator[None]:
        """Meanwhile none of them goes to make room."""
        self._used.update(digests)
        try:
            yield
        finally:
            self._used -= Counter(digests)

    def entry(self, digest: str) -> Path:
        """Where the bytes are, or would be."""
        return self._entries / digest

    def partial(self, name: str) -> Path:
        """Where they are until all are here."""
        return self._partial / name

    def room(self) -> int:
        """How many bytes may still be written; less than nothing where others have taken what was to be left alone. Raises OSError."""
        disk = os.statvfs(self._entries.parent)
        return disk.f_bavail * disk.f_frsize - self._limits.min_free_bytes

    def verified(self, digest: str) -> bool:
        """Whether it is here; an entry that was changed by somebody is deleted. Raises OSError."""
        path = self.entry(digest)
        try:
            with path.open("rb", buffering=0) as file:
                if hashlib.file_digest(file, "sha256").hexdigest() == digest:
                    return True
        except FileNotFoundError:
            return False
        path.unlink(missing_ok=True)
        return False

    def place(self, digest: str, target: Path, mode: int) -> None:
        """Have the entry at ``target``, which must not exist. Raises OSError, Transient."""
        entry = self.entry(digest)
        with self._linking:
            linked = entry.stat().st_nlink == 1
            if linked:
                target.hardlink_to(entry)
        if not linked:
            self._copy(entry, target, digest)
        target.chmod(mode)

    def _copy(self, entry: Path, target: Path, digest: str) -> None:
        found = hashlib.sha256()
        with entry.open("rb", buffering=0) as source, target.open("xb", buffering=0) as copy:
            while chunk := source.read(CHUNK):
                found.update(chunk)
                copy.write(chunk)
            os.fsync(copy.fileno())
        if found.hexdigest() != digest:
            raise Transient("what was in the cache was changed while it was copied")

    def tidy(self, needed: Collection[str], most_bytes: int) -> None:
        """Let go of what nobody needs: what is old, and of the rest what is too much, the longest unused first. Raises OSError."""
        self._forget_partials()
        spare = []
        for path in self._entries.iterdir():
            with suppress(FileNotFoundError):
                if path.name not in needed and not self._used[path.name]:
                    spare.append((path.stat().st_ctime, path))  # linking and unlinking change it, so it tells of the last use
        kept = 0
        for used, path in sorted(spare, reverse=True):
            with suppress(FileNotFoundError):
                kept += path.stat().st_size
                if kept > most_bytes or used < time.time() - IDLE_SECONDS or self.room() < 0:
                    path.unlink()

    def _forget_partials(self) -> None:
        for path in self._partial.iterdir():
            with suppress(FileNotFoundError):
                if not self._used[path.name] and path.stat().st_mtime < time.time() - PARTIAL_SECONDS:
                    path.unlink()


class Partial:
    """A file on its way into the cache. Its methods block; one at a time."""

    def __init__(self, cache: Cache, name: str, most_bytes: int) -> None:
        self._cache = cache
        self._path = cache.partial(name)
        self._most_bytes = most_bytes
        self._looked_at = 0
        self._hash = hashlib.sha256()
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._file)
            if isinstance(error, BlockingIOError):
                raise Transient("another process still writes to it") from None
            raise
        self.size = 0
        """How many bytes are here and hashed."""

    def catch_up(self) -> bool:
        """Hash a part of what an earlier attempt has left; whether there is more."""
        for _ in range(64):
            chunk = os.pread(self._file, CHUNK, self.size)
            if not chunk:
                return False
            self._hash.update(chunk)
            self.size += len(chunk)
        return True

    def restart(self) -> None:
        """From the first byte."""
        os.ftruncate(self._file, 0)
        self._hash = hashlib.sha256()
        self.size = self._looked_at = 0

    def expect(self, total: int | None) -> None:
        """Raises Missing or Transient where so many bytes are too many, before the first of them has come."""
        if total is not None and total > self._most_bytes:
            raise Missing(f"it has {total} bytes, and agent.artifacts.max_bytes is {self._most_bytes}")
        room = self._cache.room()
        if room < 0 or (total is not None and total - self.size > room):
            needed = "" if total is None else f"{total - self.size} bytes are needed, "
            raise NoRoom(f"the disk is too full: {needed}{max(0, room)} are free beyond agent.artifacts.min_free_bytes")

    def write(self, chunks: Sequence[bytes]) -> None:
        """Append and hash. Raises OSError, Missing (too many), NoRoom."""
        for chunk in chunks:
            view = memoryview(chunk)
            while view:
                view = view[os.pwrite(self._file, view, self.size + len(chunk) - len(view)) :]
            self._hash.update(chunk)
            self.size += len(chunk)
        if self.size > self._most_bytes:
            raise Missing(f"it has more than agent.artifacts.max_bytes, {self._most_bytes} bytes")
        if self.size - self._looked_at >= ROOM_EVERY:
            self._looked_at = self.size
            self.expect(None)

    @property
    def digest(self) -> str:
        """Of what is here."""
        return self._hash.hexdigest()

    def finish(self) -> None:
        """Durable, and in the cache."""
        os.ftruncate(self._file, self.size)
        os.fsync(self._file)
        self._path.rename(self._cache.entry(self.digest))

    def delete(self) -> None:
        """Nothing of it is worth keeping."""
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """What is here stays for the next attempt."""
        os.close(self._file)


class NoRoom(Transient):
    """The disk is full, or as full as it may get."""
