"""The folder that is the agent's: locked, private, and marked with the identity that everything of ours carries.

The lock is what lets the store believe its own memory, and the identity is what tells our containers from other
people's: it is made once, and never made again because it could not be read.
"""

from __future__ import annotations

import fcntl
import os
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Self

from msgspec import Struct

from boreas_agent.errors import StartupError


class WorkDir(Struct, frozen=True):
    """An open work dir. The lock lives as long as ``close`` is not called and the process is there."""

    path: Path
    identity: str
    lock: int

    @classmethod
    def open(cls, path: Path) -> WorkDir:
        """Make the folder where it is missing, take its lock, read or make its identity. Blocking. Raises StartupError."""
        path = path.absolute()
        try:
            _make(path)
            lock = _take_lock(path)
        except OSError as error:
            raise StartupError(f"cannot use {path}: {error.strerror}") from error
        try:
            return cls(path, _identity(path), lock)
        except OSError as error:
            os.close(lock)
            raise StartupError(f"cannot use {path / 'identity'}: {error.strerror}") from error
        except BaseException:
            os.close(lock)
            raise

    def close(self) -> None:
        """Let another agent in. To be called once."""
        os.close(self.lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.path / "agent.db"

    @property
    def apps(self) -> Path:
        """Releases, logs and run folders, one folder for each app."""
        return self.path / "apps"

    @property
    def keeper(self) -> Path:
        """Sockets and logs of the keepers."""
        return self.path / "keeper"


def _make(path: Path) -> None:
    """Private to us: it holds secrets, and whoever can write in it can make the agent run anything."""
    if path.exists() and not path.is_dir():
        raise StartupError(f"cannot use {path}: it is not a folder; name another one with --work-dir")
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    owner = path.stat().st_uid
    if owner != os.geteuid():
        raise StartupError(f"cannot use {path}: it belongs to user id {owner}, and the agent runs as {os.geteuid()}; chown it")
    path.chmod(0o700)


def _take_lock(path: Path) -> int:
    lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        other = os.pread(lock, 32, 0).decode("ascii", "replace").strip()
        os.close(lock)
        pid = f" (pid {other})" if other.isdigit() else ""
        raise StartupError(f"cannot use {path}: another agent{pid} is using it") from None
    except BaseException:
        os.close(lock)
        raise
    with suppress(OSError):  # a full disk: the lock holds all the same, only the other's message is poorer
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


def _identity(path: Path) -> str:
    file = path / "identity"
    try:
        text = file.read_text(encoding="ascii", errors="replace").strip()
    except FileNotFoundError:
        return _new_identity(path, file)
    try:
        found = str(uuid.UUID(text))
    except ValueError:
        found = ""
    if not found or found != text.lower():
        raise StartupError(
            f"cannot use {file}: it does not hold a UUID. It marks the containers and processes that are this agent's; restore it "
            f"(docker inspect shows it as the label boreas.agent), or delete it and agent.db to begin anew"
        )
    return found


def _new_identity(path: Path, file: Path) -> str:
    """Made before the database, so a database without it means that it was lost, and with it everything that runs."""
    if (path / "agent.db").exists():
        raise StartupError(
            f"cannot use {path}: agent.db is there and the file identity is missing. It marks the containers and processes that are "
            f"this agent's; restore it (docker inspect shows it as the label boreas.agent), or delete agent.db to begin anew"
        )
    identity = str(uuid.uuid4())
    partial = file.with_name("identity.partial")
    partial.unlink(missing_ok=True)
    made = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(made, f"{identity}\n".encode())
        os.fsync(made)
    finally:
        os.close(made)
    partial.rename(file)
    _sync_folder(path)
    _sync_folder(path.parent)
    return identity


def _sync_folder(path: Path) -> None:
    """A new name is durable only when its folder is."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
