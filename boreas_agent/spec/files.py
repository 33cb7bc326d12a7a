"""Files that the agent writes for an app: into the release folder of a process, or mounted into a container.

What they hold counts as a secret, like values of the environment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from posixpath import normpath
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, FailFast, Field, model_validator

from boreas_agent.spec.artifacts import MARKER, MASK, Artifact, InnerPath, Mode
from boreas_agent.spec.fields import AbsolutePath, Model, Plain, SignalName, Text, misplaced

_DEADLY = {"SIGKILL", "SIGSTOP"}
MAX_FILES = 256
MAX_CONTENT_BYTES = 256 * 1024


def _bounded(text: str) -> str:
    if len(text.encode()) > MAX_CONTENT_BYTES:
        raise ValueError(f"must not be longer than {MAX_CONTENT_BYTES} bytes; put it into a file of the node and name that in content_from")
    return text


def _in_release(path: str) -> str:
    if not path:
        raise ValueError("must name a file below the release folder")
    if path == MARKER:
        raise ValueError(f"{MARKER} is the agent's own file; choose another name")
    return path


def _in_container(path: str) -> str:
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not parts or ".." in parts:
        raise ValueError("must name a file in the container, without '..'")
    if any(len(part.encode()) > 255 for part in parts):
        raise ValueError("must consist of names of at most 255 bytes")
    return "/" + "/".join(parts)


class ConfigFile(Model):
    """Either ``content`` or ``content_from``, a file of the node: read when a revision is made ready, and recorded nowhere.

    A change is a new revision. With ``on_change`` ``restart`` it replaces the instances; with ``signal`` instances that differ in
    nothing else go on: what the file holds is written anew, and then their main process gets ``signal``.
    """

    path: Plain
    content: Annotated[Text, AfterValidator(_bounded)] | None = None
    content_from: AbsolutePath | None = None
    mode: Mode = "0644"
    on_change: Literal["restart", "signal"] = "restart"
    signal: SignalName = "SIGHUP"

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        if self.content is None and self.content_from is None:
            raise misplaced("content", "is required; or give content_from, a file of the node")
        if self.content is not None and self.content_from is not None:
            raise misplaced("content_from", "give either content or content_from, not both")
        if self.signal in _DEADLY:
            raise misplaced("signal", f"{self.signal} cannot be handled by any program; choose one that the program reloads its files at")
        if "signal" in self.model_fields_set and self.on_change != "signal":
            raise misplaced("signal", "is sent only with on_change: signal; give that, or leave this out")
        return self

    @property
    def reloads(self) -> bool:
        """Another content is no reason to replace an instance."""
        return self.on_change == "signal"


class ReleaseFile(ConfigFile):
    """One below the release folder of a binary or a script. It takes the place of what an artifact has brought there."""

    path: Annotated[InnerPath, AfterValidator(_in_release)]


class MountedFile(ConfigFile):
    """One at an absolute path of a container, which cannot write to it."""

    path: Annotated[AbsolutePath, Field(max_length=1024), AfterValidator(_in_container)]


_SOME = (Field(strict=False, max_length=MAX_FILES), FailFast())
ReleaseFiles = Annotated[tuple[ReleaseFile, ...], *_SOME]
MountedFiles = Annotated[tuple[MountedFile, ...], *_SOME]


def check_release_files(files: Sequence[ReleaseFile], artifacts: Sequence[Artifact]) -> None:
    """No file may be the folder of another one, or of what an artifact brings."""
    _check_paths(files)
    taken = {one.place: index for index, one in enumerate(artifacts) if not one.unpack}
    folders = {str(above): index for index, one in enumerate(artifacts) for above in PurePosixPath(one.place).parents}
    folders |= {one.place: index for index, one in enumerate(artifacts) if one.unpack}
    for index, file in enumerate(files):
        if (above := _above(file.path, taken)) is not None:
            raise misplaced(f"files[{index}].path", f"{above} is a file, by artifacts[{taken[above]}]")
        if file.path in folders:
            raise misplaced(f"files[{index}].path", f"{file.path} is a folder, by artifacts[{folders[file.path]}]")


def check_mounted_files(files: Sequence[MountedFile], mounted: Mapping[str, str]) -> None:
    """No file may be at, or be a folder of, what else is mounted: paths in the container and the fields that say so."""
    _check_paths(files)
    places = {"/" + normpath(path).lstrip("/"): field for path, field in mounted.items()}
    folders = {str(above): field for path, field in places.items() for above in PurePosixPath(path).parents}
    for index, file in enumerate(files):
        if file.path in places:
            raise misplaced(f"files[{index}].path", f"{file.path} is mounted twice: {places[file.path]} is there, too")
        if file.path in folders:
            raise misplaced(f"files[{index}].path", f"{file.path} is a folder, by {folders[file.path]}")


def _check_paths(files: Sequence[ConfigFile]) -> None:
    paths: dict[str, int] = {}
    for index, file in enumerate(files):
        if file.path in paths:
            raise misplaced(f"files[{index}].path", f"{file.path} is the path of files[{paths[file.path]}] too")
        paths[file.path] = index
    for index, file in enumerate(files):
        if (above := _above(file.path, paths)) is not None:
            raise misplaced(f"files[{index}].path", f"{above} is a file, by files[{paths[above]}]")


def _above(path: str, places: Mapping[str, int]) -> str | None:
    return next((str(above) for above in PurePosixPath(path).parents if str(above) in places), None)


def contents(canonical: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of canonical files those whose content a running instance can be told to read anew."""
    return [dict(one) for one in canonical if one.get("on_change") == "signal"]


def without_contents(canonical: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Canonical files without what :func:`contents` is about."""
    return [{key: one[key] for key in one if key not in _CONTENTS} if one.get("on_change") == "signal" else dict(one) for one in canonical]


_CONTENTS = frozenset({"content", "content_from", "signal"})


def masked_files(canonical: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Canonical files as people may see them."""
    return [{**one, "content": MASK} if "content" in one else dict(one) for one in canonical]
