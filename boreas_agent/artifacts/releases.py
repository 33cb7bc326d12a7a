"""Releases: the folder of one revision of one app, with all that its artifacts and files bring, whole or not there.

apps/APP/releases/REVISION/                 with MARKER in it: what it was made from
apps/APP/releases/.making.REVISION.HEX/     one that is being made
apps/APP/current                            a link to the one that was started last
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import threading
import time
import uuid
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from msgspec import Struct
from msgspec.structs import replace

from boreas_agent.artifacts import tree, unpacking
from boreas_agent.artifacts.cache import Cache, NoRoom
from boreas_agent.artifacts.download import of_disk
from boreas_agent.artifacts.fetch import Fetcher
from boreas_agent.artifacts.limits import Limits
from boreas_agent.artifacts.writing import write
from boreas_agent.errors import BoreasError, Missing, Terminal, Transient
from boreas_agent.spec import MARKER, Artifact, ReleaseFile

KEPT = 5
"""So many of an app's newest releases stay, whatever they are."""
THREADS = 8
UNPACKERS = 4
"""At once; each of them holds a thread, and downloads need some, too."""
TIDY_SECONDS = 600.0
"""Between two looks through the cache while no release goes."""
_MAKING, _GOING = ".making.", ".going."
_CHANGING = "changing"
"""The contents of a release while they are changed: nobody's."""


class Contents(Struct, frozen=True):
    """What is to be in a release: artifacts, then files, which win. ``made_of`` and ``contents`` identify it all: a release that differs
    only in the latter, what may change under a running app, is not made anew. ``owner``: of the files.
    """

    artifacts: tuple[Artifact, ...]
    files: tuple[ReleaseFile, ...]
    made_of: str
    contents: str = ""
    owner: tuple[int, int] | None = None


class Releases:
    """Makes and forgets them. ``folder`` (apps) and ``cache`` are on the same file system."""

    def __init__(self, apps: Path, cache: Path, limits: Limits) -> None:
        self._apps = apps
        self._limits = limits
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="artifacts")
        self._cache = Cache(cache, limits)
        self._fetcher = Fetcher(self._cache, limits, self._in_thread)
        self._unpackers = asyncio.Semaphore(UNPACKERS)
        self._locks: WeakValueDictionary[Path, asyncio.Lock] = WeakValueDictionary()
        self._doing: dict[str, object] = {}
        self._tidied = float("-inf")

    async def _in_thread(self, work: Any, *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *args)

    async def open(self) -> None:
        """Delete what an agent that was killed has left half made; not what it has fetched. Raises OSError."""
        await self._in_thread(self._sweep)

    def _sweep(self) -> None:
        self._cache.prepare()
        for left in (*self._apps.glob(f"*/releases/{_MAKING}*"), *self._apps.glob(f"*/releases/{_GOING}*")):
            shutil.rmtree(left, ignore_errors=True)

    def leave(self) -> None:
        """Whatever is given up from now on is kept for the next agent."""
        self._fetcher.leave()

    async def close(self) -> None:
        """Give everything up."""
        await self._fetcher.close()
        await asyncio.to_thread(self._threads.shutdown)

    def progress(self, app: str) -> str:
        """What is being done for the app, in a few words; empty where it is nothing."""
        return str(self._doing.get(app, ""))

    # --- making ----------------------------------------------------------------------------------

    async def made(self, folder: Path, made_of: str, contents: str) -> bool:
        """Whether the release is there, and made of what ``made_of`` and ``contents`` identify (see :class:`Contents`)."""
        marker = await self._in_thread(_read_marker, folder)
        return marker is not None and (marker["made_of"], marker["contents"]) == (made_of, contents)

    async def make(self, app: str, folder: Path, contents: Contents) -> None:
        """Have the release at ``folder``. Whoever gives up leaves nothing half made. Raises Transient, Missing, Terminal."""
        lock = self._locks.setdefault(folder, asyncio.Lock())
        async with lock:
            try:
                marker = await self._in_thread(_read_marker, folder)
                if marker is None or marker["made_of"] != contents.made_of:
                    await self._make(app, folder, contents)
                elif marker["contents"] != contents.contents:
                    await self._in_thread(_refresh, folder, contents, marker["sha256"], None)
            except OSError as error:
                raise Transient(f"cannot make {folder}: {of_disk(error)}") from error
            finally:
                self._doing.pop(app, None)

    async def _make(self, app: str, folder: Path, contents: Contents) -> None:
        artifacts = contents.artifacts
        with self._cache.using([one.sha256 for one in artifacts if one.sha256]):
            await self._in_thread(self._cache.prepare)
            digests = [await self._fetch(app, one) for one in artifacts]
            making = folder.with_name(f"{_MAKING}{folder.name}.{uuid.uuid4().hex}")
            try:
                root = await self._in_thread(_begin, making)
                for artifact, digest in zip(artifacts, digests, strict=True):
                    await self._place(app, artifact, digest, root)
                for file in contents.files:
                    await self._in_thread(_put, root, file, contents.owner)
                marker = _marker(contents, digests)
                await self._in_thread(_finish, root, folder, marker, any(one.unpack for one in artifacts))
            finally:
                await self._in_thread(shutil.rmtree, making, True)

    async def _fetch(self, app: str, artifact: Artifact) -> str:
        def tell(what: object) -> None:
            self._doing[app] = what

        try:
            try:
                return await self._fetcher.fetch(artifact, tell)
            except NoRoom:
                await self._in_thread(self._tidy, 0)
                return await self._fetcher.fetch(artifact, tell)
        except BoreasError as error:
            raise _of(artifact, error) from error

    async def _place(self, app: str, artifact: Artifact, digest: str, root: Path) -> None:
        try:
            if not artifact.unpack:
                await self._in_thread(self._place_file, artifact, digest, root)
                return
            async with self._unpackers:
                self._doing[app] = f"unpacking {artifact.name}"
                await self._unpack(artifact, digest, root)
        except BoreasError as error:
            raise _of(artifact, error) from error

    def _place_file(self, artifact: Artifact, digest: str, root: Path) -> None:
        self._cache.place(digest, _room_for(root, artifact.place), int(artifact.mode or "0755", 8))

    async def _unpack(self, artifact: Artifact, digest: str, root: Path) -> None:
        stop = threading.Event()
        work = asyncio.ensure_future(self._in_thread(self._unpack_now, artifact, digest, root, stop))
        try:
            await asyncio.shield(work)
        finally:
            stop.set()
            await asyncio.gather(work, return_exceptions=True)

    def _unpack_now(self, artifact: Artifact, digest: str, root: Path, stop: threading.Event) -> None:
        unpacked = root.with_name("unpacked")
        archive = self._cache.entry(digest)
        unpacking.unpack(archive, unpacked, artifact, self._limits, self._cache.room, stop)
        owner = unpacking.owner()
        tree.adopt(unpacked, os.geteuid() if owner is None else owner, self._limits.most_entries)
        tree.merge(unpacked, tree.folder_for(root, artifact.place))
        shutil.rmtree(unpacked)

    async def refresh(self, folder: Path, contents: Contents, source: Path) -> None:
        """Give the release at ``folder`` the contents that the release at ``source`` has. Raises Transient, Missing."""
        async with self._locks.setdefault(folder, asyncio.Lock()):
            try:
                marker = await self._in_thread(_read_marker, folder)
                if marker is None or marker["made_of"] != contents.made_of:
                    raise Missing(f"{folder} is not what it was made from any more; restart the app")
                if marker["contents"] != contents.contents:
                    await self._in_thread(_refresh, folder, contents, marker["sha256"], source)
            except OSError as error:
                raise Transient(f"cannot write to {folder}: {of_disk(error)}") from error

    # --- forgetting ------------------------------------------------------------------------------

    async def collect(self, keep: Iterable[tuple[Path, Collection[int]]]) -> None:
        """Delete the releases of apps (their folders) but those of these revisions, of instances, and the newest few; then tidy the cache.

        Where no revision is to be kept the app is gone, and so are all its releases that no instance needs. Raises OSError.
        """
        deleted = sum([await self._in_thread(_collect, app, revisions) for app, revisions in keep])
        if deleted or time.monotonic() - self._tidied > TIDY_SECONDS:
            self._tidied = time.monotonic()
            await self._in_thread(self._tidy, self._limits.cache_bytes)

    def _tidy(self, most_bytes: int) -> None:
        markers = (_read_marker(path.parent) for path in self._apps.glob(f"*/releases/*/{MARKER}"))
        self._cache.tidy({digest for marker in markers if marker is not None for digest in marker["sha256"]}, most_bytes)


def _of(artifact: Artifact, error: BoreasError) -> BoreasError:
    """The same fault, with the name of what it is about."""
    kind = type(error) if isinstance(error, Missing | Terminal) else Transient
    return kind(f"cannot fetch {artifact.shown}: {error}")


def _read_marker(folder: Path) -> dict[str, Any] | None:
    try:
        found = {"contents": "", **json.loads((folder / MARKER).read_bytes())}
        return found if isinstance(found["made_of"], str) and isinstance(found["sha256"], list) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _begin(making: Path) -> Path:
    making.parent.mkdir(parents=True, exist_ok=True)
    making.mkdir(mode=0o700)
    root = making / "root"
    root.mkdir()
    root.chmod(0o755)  # whatever the agent's own umask is
    return root


def _place(root: Path, place: str) -> Path:
    """Where a file is to be, with the folders above it. Raises Missing where there is a folder, OSError."""
    above, _, name = place.rpartition("/")
    target = tree.folder_for(root, above) / name
    if target.is_dir() and not target.is_symlink():
        raise Missing(f"{place} is a folder: an artifact has brought one of that name")
    return target


def _room_for(root: Path, place: str) -> Path:
    """The same, with nothing there yet."""
    target = _place(root, place)
    target.unlink(missing_ok=True)
    return target


def _put(root: Path, file: ReleaseFile, owner: tuple[int, int] | None) -> None:
    try:
        target = _room_for(root, file.path)
    except Missing as error:
        raise Missing(f"cannot write {file.path}: {error}") from error
    _write(target, file, owner)


def _write(target: Path, file: ReleaseFile, owner: tuple[int, int] | None, written: Path | None = None) -> None:
    try:
        write(target, file, owner, written)
    except Missing as error:
        raise Missing(f"cannot write {file.path}: {error}") from error


def _refresh(folder: Path, contents: Contents, digests: Iterable[str], source: Path | None) -> None:
    """Write those files anew that may change under a running app, as they are below ``source``, else as their spec says.

    Each is whole at any moment, and none is changed before all can be. Where it is cut short the release says that it has no
    contents that anybody asks for, so it is written again before it is used.
    """
    making = folder.with_name(f"{_MAKING}{folder.name}.{uuid.uuid4().hex}")
    making.mkdir(mode=0o700)
    try:
        drafts = [(file, making / str(index)) for index, file in enumerate(contents.files) if file.reloads]
        for file, draft in drafts:
            _write(draft, file, contents.owner, source / file.path if source is not None else None)
        places = [(draft, _place(folder, file.path)) for file, draft in drafts]
        _mark(making, folder, _marker(replace(contents, contents=_CHANGING), digests))
        for draft, place in places:
            draft.rename(place)
            tree.sync(place.parent)
        _mark(making, folder, _marker(contents, digests))
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _mark(making: Path, folder: Path, marker: str) -> None:
    _write_marker(making / MARKER, marker)
    (making / MARKER).rename(folder / MARKER)
    tree.sync(folder)


def _marker(contents: Contents, digests: Iterable[str]) -> str:
    """What the release's own file says."""
    changing = {"contents": contents.contents} if contents.contents else {}
    return json.dumps({"made_of": contents.made_of, "sha256": sorted(set(digests)), **changing})


def _write_marker(path: Path, marker: str) -> None:
    with path.open("x", encoding="utf-8") as file:
        file.write(marker)
        file.flush()
        os.fsync(file.fileno())


def _finish(root: Path, folder: Path, marker: str, many: bool) -> None:
    """Durable as a whole, and in its place. Raises Missing, OSError."""
    if os.path.lexists(root / MARKER):
        raise Missing(f"an archive brings a file {MARKER}, which is the agent's own")
    tree.check_links(root)
    _write_marker(root / MARKER, marker)
    if many:
        tree.sync_all(root)
    else:
        for inner in {root.joinpath(*entry.path[:-1]) for entry in tree.walk(root)}:
            tree.sync(inner)
    with suppress(FileNotFoundError):
        _remove(folder)  # made of something else, by an agent that knew another history
    root.rename(folder)
    for above in (folder.parent, folder.parent.parent, folder.parent.parent.parent):
        tree.sync(above)


def _remove(folder: Path) -> None:
    """Gone at once, and then deleted."""
    going = folder.with_name(f"{_GOING}{folder.name}.{uuid.uuid4().hex}")
    folder.rename(going)
    shutil.rmtree(going)


def _collect(app: Path, keep: Collection[int]) -> int:
    """How many were deleted."""
    releases = app / "releases"
    if not releases.is_dir():
        return 0
    made = {int(path.name): path for path in releases.iterdir() if path.name.isdecimal() and (path / MARKER).exists()}
    newest = sorted(made)[-KEPT:] if keep else ()
    doomed = made.keys() - {*keep, *newest, *_running(app)}
    for revision in doomed:
        _remove(made[revision])
    current = app / "current"
    if current.is_symlink() and not current.exists():
        current.unlink()
    if not keep:
        for empty in (releases, app):
            with suppress(OSError):
                empty.rmdir()
    return len(doomed)


def _running(app: Path) -> set[int]:
    """The revisions that there are instances of."""
    with suppress(FileNotFoundError):
        names = [path.name.partition(".")[0] for path in (app / "instances").iterdir()]
        return {int(name) for name in names if name.isdecimal()}
    return set()


def switch(release: Path) -> None:
    """Let ``current`` of its app lead to ``release``. Raises OSError."""
    current, target = release.parent.parent / "current", f"releases/{release.name}"
    with suppress(OSError):
        if current.readlink() == Path(target):
            return
    draft = current.with_name(f".current.{uuid.uuid4().hex}")
    draft.symlink_to(target)
    try:
        draft.rename(current)
    except OSError:
        draft.unlink()
        raise
