"""Files that are mounted into containers: rendered on the node, whole or not there, in a folder for each revision.

apps/APP/files/REVISION.HASH/0 …            by their places in the spec; HASH: of what they are made from
apps/APP/files/REVISION.HASH/contents       which contents those have that may change under a running container
apps/APP/files/REVISION.HASH/REPLICA.became what a container has gone over to, which its labels cannot say
apps/APP/files/.making.HEX/                 one that is being made

The folders above are the agent's alone. A mount of the file is made by the engine, so in the container its own mode decides. What a
container has mounted is the very file: another one in its place it would never see, so new contents are written into it.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

from msgspec import Struct
from msgspec.structs import asdict, replace

from boreas_agent.artifacts.download import of_disk
from boreas_agent.artifacts.writing import write
from boreas_agent.drivers.runs import write_durably
from boreas_agent.errors import Missing, Transient
from boreas_agent.keeper.kernel import sync
from boreas_agent.model import Instance, InstanceName
from boreas_agent.spec import ConfigFile, contents_hash, release_hash

_MAKING, _CONTENTS, _CHANGING = ".making.", "contents", "changing"
_MOST_KNOWN = 1000


class Became(Struct, frozen=True):
    """That the container ``ref`` is another instance than its labels say, of ``revision``; since ``at``, in seconds of boot ``boot``.

    Without a ``hash`` it is about to become one, so what it has read nobody knows.
    """

    ref: str
    hash: str
    record: str
    revision: int
    at: float
    boot: str


class Files:
    """Makes and forgets them."""

    def __init__(self, work_dir: Path) -> None:
        self._apps = work_dir.absolute() / "apps"
        self._making: set[Path] = set()
        self._known: dict[str, Became | None] = {}

    def folder(self, want: Instance) -> Path:
        """Where the files of ``want`` are."""
        return self._folders(want.name.app) / f"{want.name.revision}.{release_hash(want.pkg)[:12]}"

    def _folders(self, app: str) -> Path:
        return self._apps / app / "files"

    async def made(self, want: Instance) -> bool:
        """Whether they are all there."""
        return not want.pkg.files or await asyncio.to_thread(self._made, want)

    def _made(self, want: Instance) -> bool:
        return self._there(want) and _contents(self.folder(want)) == contents_hash(want.pkg)

    def _there(self, want: Instance) -> bool:
        folder = self.folder(want)
        return all((folder / str(index)).is_file() for index in range(len(want.pkg.files)))

    async def make(self, want: Instance) -> None:
        """Have them all there; what is there stays as it is, but for contents that may change. Raises Missing, Transient."""
        if want.pkg.files:
            try:
                await asyncio.to_thread(self._make, want)
            except OSError as error:
                raise Transient(f"cannot write the files of {want.name}: {of_disk(error)}") from error

    def _make(self, want: Instance) -> None:
        # Asked in this order: another replica's start may make them, whole, between the two.
        if not self._there(want):
            self._with_drafts(want, partial(self._build, want))
        elif not self._made(want):
            self._with_drafts(want, partial(_rewrite, want, self.folder(want), None))

    def _with_drafts(self, want: Instance, work: Callable[[Path], None]) -> None:
        """Do it with a folder for what is half made."""
        making = self.folder(want).with_name(f"{_MAKING}{uuid.uuid4().hex}")
        self._making.add(making)
        try:
            making.mkdir(mode=0o700, parents=True)
            work(making)
        finally:
            shutil.rmtree(making, ignore_errors=True)
            self._making.discard(making)

    def _build(self, want: Instance, making: Path) -> None:
        _write(want, making, want.pkg.files)
        _mark(making, contents_hash(want.pkg))
        folder = self.folder(want)
        self._put(making, folder, want)
        for above in (folder.parent, folder.parent.parent, self._apps):
            sync(str(above))

    def _put(self, making: Path, folder: Path, want: Instance) -> None:
        """Where another replica's start has been quicker, its files stay: they may be mounted already."""
        if not self._there(want):
            shutil.rmtree(folder, ignore_errors=True)  # a part of it was deleted
        try:
            making.rename(folder)
        except OSError:
            if not self._there(want):
                raise

    # --- what containers have gone over to ---------------------------------------------------------

    async def refresh(self, want: Instance, name: InstanceName) -> None:
        """Write what was made for ``want`` into the files that are mounted into the container ``name``. Raises Missing, Transient."""
        mounted = replace(want, name=name)
        try:
            await asyncio.to_thread(self._refresh, mounted, self.folder(want))
        except OSError as error:
            raise Transient(f"cannot write the files of {name}: {of_disk(error)}") from error

    def _refresh(self, mounted: Instance, source: Path) -> None:
        if not self._there(mounted):
            raise Missing(f"a file that is mounted into {mounted.name} was deleted on this node; restart the app")
        if not self._made(mounted):
            self._with_drafts(mounted, partial(_rewrite, mounted, self.folder(mounted), source))

    async def became(self, name: InstanceName, record: str, ref: str) -> Became | None:
        """What the container ``ref``, which was made as ``record`` says, has become; None where it still is that."""
        if '"on_change":"signal"' not in record:
            return None
        if ref not in self._known:
            found = await asyncio.to_thread(self._read, name, ref)
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known.setdefault(ref, found)  # else it was noted meanwhile
        return self._known[ref]

    async def note(self, name: InstanceName, now: Became) -> None:
        """Have the node know what the container has become. Raises Transient."""
        try:
            await asyncio.to_thread(self._note, name, now)
        except OSError as error:
            raise Transient(f"cannot note what {name} is now: {of_disk(error)}") from error
        self._known[now.ref] = now

    def _note(self, name: InstanceName, now: Became) -> None:
        folder = next(iter(self._of(name)), None)
        if folder is None:
            raise Missing(f"the files that are mounted into {name} were deleted on this node; restart the app")
        write_durably(folder / f"{name.replica}.became", json.dumps(asdict(now)))
        sync(str(folder))

    def _read(self, name: InstanceName, ref: str) -> Became | None:
        for folder in self._of(name):
            with suppress(OSError, ValueError, TypeError):
                found = Became(**json.loads((folder / f"{name.replica}.became").read_bytes()))
                if found.ref == ref:
                    return found
        return None

    def _of(self, name: InstanceName) -> Iterable[Path]:
        """The folders of its revision; there is one."""
        return (path for path in self._folders(name.app).glob(f"{name.revision}.*") if path.is_dir())

    # --- forgetting ------------------------------------------------------------------------------

    async def spare(self, keep: Mapping[str, Collection[int]]) -> Mapping[str, Collection[int]]:
        """Of these apps the revisions that there are files of, but for those to be kept, and newer ones: they have come meanwhile."""
        return await asyncio.to_thread(self._spare, keep)

    def _spare(self, keep: Mapping[str, Collection[int]]) -> Mapping[str, Collection[int]]:
        found = {app: {_revision(path) for path in _listed(self._folders(app))} - {*kept} for app, kept in keep.items()}
        old = {app: {one for one in revisions if not keep[app] or one < max(keep[app])} for app, revisions in found.items()}
        return {app: revisions for app, revisions in old.items() if revisions}

    async def delete(self, app: str, revisions: Collection[int]) -> None:
        """Delete the files of these revisions, and the app's folder with the last ones. Raises Transient."""
        try:
            await asyncio.to_thread(self._delete, app, revisions)
        except OSError as error:
            raise Transient(f"cannot delete old files of {app}: {of_disk(error)}") from error

    def _delete(self, app: str, revisions: Collection[int]) -> None:
        folders = self._folders(app)
        for path in _listed(folders):
            if _revision(path) in revisions and path not in self._making:
                shutil.rmtree(path)
        for empty in (folders, folders.parent):
            with suppress(OSError):
                empty.rmdir()


def _write(want: Instance, folder: Path, files: Collection[ConfigFile], source: Path | None = None) -> None:
    """Write those of ``want``'s that are among ``files``; as they are in ``source``, where that is given."""
    for index, file in enumerate(want.pkg.files):
        if file not in files:
            continue
        try:
            write(folder / str(index), file, _owner(want.pkg.user), source / str(index) if source is not None else None)
        except Missing as error:
            raise Missing(f"cannot write {file.path}: {error}") from error
    sync(str(folder))


def _rewrite(want: Instance, folder: Path, source: Path | None, making: Path) -> None:
    """Give the files in ``folder`` that may change under a container the contents that ``want`` has; none before all can be had.

    Where it is cut short the folder has contents that nobody asks for, so they are written again before they are used.
    """
    _write(want, making, [file for file in want.pkg.files if file.reloads], source)
    _mark(folder, _CHANGING)
    for draft in sorted(making.iterdir()):
        with (folder / draft.name).open("r+b") as file:
            file.write(draft.read_bytes())
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
    _mark(folder, contents_hash(want.pkg))


def _mark(folder: Path, contents: str) -> None:
    if contents:
        write_durably(folder / _CONTENTS, contents)
        sync(str(folder))


def _contents(folder: Path) -> str:
    with suppress(FileNotFoundError):
        return (folder / _CONTENTS).read_text(encoding="utf-8")
    return ""


def _listed(folder: Path) -> Iterable[Path]:
    return tuple(folder.iterdir()) if folder.is_dir() else ()


def _revision(folder: Path) -> int:
    """Of what is half made, since an agent was killed: that of no revision."""
    number = folder.name.partition(".")[0]
    return int(number) if number.isdecimal() else 0


def _owner(user: str | None) -> tuple[int, int] | None:
    """The user of the container where it is given by number; what a name means only its image knows."""
    name, _, group = (user or "").partition(":")
    if os.geteuid() != 0 or not name.isdecimal():
        return None
    return int(name), int(group) if group.isdecimal() else -1
