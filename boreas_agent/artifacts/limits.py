"""How much may be fetched and unpacked, and from where on this node."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from msgspec import Struct

InThread = Callable[..., Awaitable[Any]]
GIB = 1024**3


class Limits(Struct, frozen=True):
    """Sizes in bytes. ``file_roots``: below them is what ``file:`` may name; ``header_roots``: what ``headers_from`` may.

    ``min_free_bytes`` of the work dir's disk are left alone. ``cache_bytes``: what the cache keeps for nobody in particular.
    ``seconds``: one fetch at most; ``stall_seconds``: of it without a byte.
    """

    file_roots: tuple[str, ...] = ()
    header_roots: tuple[str, ...] = ()
    max_bytes: int = 8 * GIB
    max_unpacked_bytes: int = 16 * GIB
    min_free_bytes: int = GIB // 4
    cache_bytes: int = 2 * GIB
    seconds: float = 3600.0
    stall_seconds: float = 60.0
    most_entries: int = 200_000
    ratio: int = 250
    unpack_seconds: int = 900
