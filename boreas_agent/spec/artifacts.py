"""Files that an app brings with it, fetched into its release folder.

What is fetched is told by its SHA-256, not by its address: the same bytes from another address, or by a link that was signed anew,
are the same artifact, and replace nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Self
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from boreas_agent.spec.fields import LIST, AbsolutePath, Model, Plain, misplaced

MARKER = ".artifacts.json"
"""What a release folder says about itself; no artifact may bring a file of this name to its root."""
MASK = "***"


def _url(text: str) -> str:
    """The message never repeats the address: it may hold a secret."""
    try:
        parts = urlsplit(text)
        known = parts.scheme in {"http", "https", "file"} and parts.port != 0
    except ValueError:
        raise ValueError("is not an address") from None
    if not known:
        raise ValueError("must begin with https://, http:// or file:///")
    if "@" in parts.netloc:
        raise ValueError("must not contain a user or a password; put an Authorization line into a file and name it in headers_from")
    if parts.fragment or " " in text:
        raise ValueError("must not contain '#' or spaces")
    if parts.scheme == "file":
        if parts.netloc or not parts.path.startswith("/") or parts.query:
            raise ValueError("must be file:/// and an absolute path")
        if "\0" in unquote(parts.path) or ".." in unquote(parts.path).split("/"):
            raise ValueError("must not contain '..' or NUL")
    elif not parts.hostname:
        raise ValueError("must name a host")
    return text


def _digest(text: str) -> str:
    found = text.removeprefix("sha256:").lower()
    if not re.fullmatch("[0-9a-f]{64}", found):
        raise ValueError("must be a SHA-256 as 64 hexadecimal digits, as sha256sum prints it")
    return found


def _mode(text: str) -> str:
    if not re.fullmatch("0?[0-7]{3}", text):
        raise ValueError('must be permissions like "0755", without setuid, setgid and sticky bits')
    return text.zfill(4)


def _inside(text: str) -> str:
    """A path below the release folder, without detours."""
    if text.startswith("/"):
        raise ValueError("must be relative to the release folder, not absolute")
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ValueError("must not contain '..'")
    if not text.isprintable() or any(len(part.encode()) > 255 for part in parts):
        raise ValueError("must consist of printable names of at most 255 bytes")
    return "/".join(parts)


def _unpack(value: object) -> object:
    """``true`` lets the content decide what kind of archive it is."""
    return {True: "auto", False: None}[value] if isinstance(value, bool) else value


Url = Annotated[Plain, Field(max_length=8192), AfterValidator(_url)]
Digest = Annotated[str, AfterValidator(_digest)]
Mode = Annotated[str, AfterValidator(_mode)]
InnerPath = Annotated[Plain, Field(max_length=1024), AfterValidator(_inside)]


class Artifact(Model):
    """``dest``: where it goes, below the release folder; by default the last part of the address, an archive's root.

    ``mode`` is for single files, by default ``0755``. ``headers_from``: a file of the node whose lines ``Name: value`` are sent along.
    """

    url: Url
    sha256: Digest | None = None
    dest: InnerPath | None = None
    mode: Mode | None = None
    unpack: Annotated[Literal["tar", "zip", "auto"] | None, BeforeValidator(_unpack)] = None
    strip_components: Annotated[int, Field(ge=0, le=100)] = 0
    headers_from: AbsolutePath | None = None

    @property
    def is_file(self) -> bool:
        """It comes from the node itself."""
        return self.url.startswith("file:")

    @property
    def file_path(self) -> str:
        """Of one that does."""
        return unquote(urlsplit(self.url).path)

    @property
    def place(self) -> str:
        """Where it goes, below the release folder; empty for the folder itself."""
        if self.dest is not None:
            return self.dest
        return "" if self.unpack else unquote(urlsplit(self.url).path).rpartition("/")[2]

    @property
    def shown(self) -> str:
        """The address as people may see it."""
        return masked_url(self.url)

    @property
    def name(self) -> str:
        """In a word, for messages."""
        return unquote(urlsplit(self.url).path).rpartition("/")[2] or self.place or "artifact"

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.sha256 is None and not self.is_file:
            raise misplaced("sha256", "is required for what comes over a network; sha256sum prints it")
        if self.headers_from is not None and self.is_file:
            raise misplaced("headers_from", "is for http and https")
        if self.unpack and self.mode is not None:
            raise misplaced("mode", "is for single files; an archive brings the modes of its files with it")
        if self.strip_components and not self.unpack:
            raise misplaced("strip_components", "needs unpack")
        if not self.unpack and not _is_name(self.place):
            raise misplaced("dest", "is required: the address does not end in a file name")
        if self.place == MARKER:
            raise misplaced("dest", f"{MARKER} is the agent's own file; choose another name")
        return self


def _is_name(place: str) -> bool:
    name = PurePosixPath(place).name
    return bool(name) and name not in (".", "..") and name.isprintable() and len(name.encode()) <= 255


Artifacts = Annotated[tuple[Artifact, ...], *LIST]


def check_places(artifacts: Sequence[Artifact]) -> None:
    """No two single files may claim one place, or one be the folder of another."""
    files: dict[str, int] = {}
    for index, one in enumerate(artifacts):
        if not one.unpack and one.place in files:
            raise misplaced(f"artifacts[{index}].dest", f"{one.place} is the place of artifacts[{files[one.place]}] too")
        if not one.unpack:
            files[one.place] = index
    for index, one in enumerate(artifacts):
        above = next((str(part) for part in PurePosixPath(one.place).parents if str(part) in files), None)
        if above is not None or (one.unpack and one.place in files):
            raise misplaced(f"artifacts[{index}].dest", f"{above or one.place} is a file, by artifacts[{files[above or one.place]}]")


def masked_url(url: str) -> str:
    """With the values of its query hidden: links that are signed for a while carry their secret there."""
    address, mark, query = url.partition("?")
    if not mark:
        return url
    hidden = [f"{name}={MASK}" if equals else MASK for name, equals, _ in (part.partition("=") for part in query.split("&"))]
    return f"{address}?{'&'.join(hidden)}"


def masked_artifacts(canonical: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Canonical artifacts as people may see them."""
    return [{**one, "url": masked_url(one["url"])} for one in canonical]


def made_of(artifacts: Sequence[Artifact]) -> list[dict[str, Any]]:
    """What of them is in the release folder afterwards, in canonical form. Where bytes that are known come from does not matter."""
    return [_made_of(one) for one in artifacts]


def _made_of(artifact: Artifact) -> dict[str, Any]:
    canonical = artifact.model_dump(mode="json", exclude_defaults=True, exclude={"headers_from", "dest"})
    if artifact.sha256 is not None:
        del canonical["url"]
    return canonical | {"dest": artifact.place}
