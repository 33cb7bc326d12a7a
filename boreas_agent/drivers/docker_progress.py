"""How far a pull is, from what the engine says of each layer. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace
from pydantic import ByteSize

_FETCHED = frozenset({"Verifying Checksum", "Download complete", "Extracting"})
_DONE = frozenset({"Pull complete", "Already exists"})
_KNOWN = _FETCHED | _DONE | {"Pulling fs layer", "Waiting", "Downloading"}


class _Layer(Struct, frozen=True):
    """Bytes here and bytes in all, as far as they are known, and whether it is unpacked."""

    here: int = 0
    size: int = 0
    done: bool = False


class Progress:
    """Of one pull."""

    def __init__(self) -> None:
        self._layers: dict[str, _Layer] = {}

    def hear(self, message: Mapping[str, Any]) -> None:
        """Take in what the engine says."""
        name, status = message.get("id"), message.get("status")
        if not isinstance(name, str) or status not in _KNOWN:
            return
        layer, detail = self._layers.get(name, _Layer()), message.get("progressDetail") or {}
        if status == "Downloading":
            layer = replace(layer, here=int(detail.get("current") or 0), size=max(layer.size, int(detail.get("total") or 0)))
        elif status in _FETCHED:
            layer = replace(layer, here=layer.size)
        elif status in _DONE:
            layer = replace(layer, here=layer.size, done=True)
        self._layers[name] = layer

    def __str__(self) -> str:
        """``12.5MB of 45.0MB, 2 of 5 layers``; empty while nothing is known. The sizes are of the layers that have begun."""
        layers = self._layers.values()
        if not layers:
            return ""
        here, size = sum(layer.here for layer in layers), sum(layer.size for layer in layers)
        read = f"{_human(min(here, size))} of {_human(size)}, " if size else ""
        return f"{read}{sum(layer.done for layer in layers)} of {len(layers)} layers"


def _human(size: int) -> str:
    return ByteSize(size).human_readable(decimal=True)
