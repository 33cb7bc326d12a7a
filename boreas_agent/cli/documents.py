"""Reading ``apply -f``: YAML or JSON, several documents a file, folders, stdin.

Only the shape is looked at here; what is in a spec is the agent's to judge, so that an older command line can
submit to a newer agent.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from boreas_agent import strictjson, strictyaml
from boreas_agent.cli.client import CommandFailed

SUFFIXES = {".yaml", ".yml", ".json"}


class Document(NamedTuple):
    """One app to submit, and where it was written."""

    origin: str
    body: dict[str, Any]

    @property
    def app(self) -> str:
        """The app's name as far as it can be told."""
        return str(self.body.get("app", "?"))


def read(names: Sequence[str]) -> list[Document]:
    """Every document of every file, before anything is sent; raises CommandFailed."""
    found: list[Document] = []
    for name in names:
        for label, content in _files(name):
            found += _documents(label, content)
    if not found:
        raise CommandFailed(f"cannot apply {', '.join(names)}: there is no app in it")
    seen: dict[str, Document] = {}
    for document in found:
        other = seen.setdefault(document.app, document)
        if other is not document:
            raise CommandFailed(f"cannot apply {document.app} twice: it is in {other.origin} and in {document.origin}")
    return found


def _files(name: str) -> Iterator[tuple[str, bytes]]:
    if name == "-":
        yield "stdin", sys.stdin.buffer.read()
        return
    path = Path(name)
    try:
        if path.is_dir():
            for inner in sorted(inner for inner in path.iterdir() if inner.suffix in SUFFIXES and inner.is_file()):
                yield str(inner), inner.read_bytes()
        else:
            yield name, path.read_bytes()
    except (OSError, ValueError) as error:
        raise CommandFailed(f"cannot read {name}: {getattr(error, 'strerror', None) or error}") from None


def _documents(label: str, content: bytes) -> list[Document]:
    try:
        parsed = _parsed(content)
    except ValueError as error:
        raise CommandFailed(f"cannot read {label}: {error}") from None
    found = []
    for number, data in enumerate(parsed, 1):
        origin = label if len(parsed) == 1 else f"{label} (document {number})"
        if data is None:
            continue  # an empty document: a trailing '---', or comments alone
        if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
            raise CommandFailed(f"cannot read {origin}: it must be a mapping with app, version and pkg")
        try:
            json.dumps(data, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise CommandFailed(f"cannot send {origin} as JSON: {error}") from None
        found.append(Document(origin, data))
    return found


def _parsed(content: bytes) -> list[object]:
    """JSON is read as JSON (not all of it is YAML: tabs, for one), everything else as YAML.
    An array holds several documents, and several objects may follow each other."""
    if not content.lstrip().startswith((b"{", b"[")):
        return list(strictyaml.documents(content))
    try:
        found = strictjson.documents(content)
    except ValueError as not_json:
        try:
            return list(strictyaml.documents(content))  # '{app: web}' is YAML too
        except ValueError:
            raise not_json from None
    return [inner for data in found for inner in (data if isinstance(data, list) else [data])]
