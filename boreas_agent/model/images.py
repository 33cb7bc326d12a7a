"""What the agent has brought onto the node."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct


class PulledImage(Struct, frozen=True):
    """An image that was not here before the agent pulled it, by ``names``. ``idle``: for how many seconds nobody has needed it."""

    id: str
    names: tuple[str, ...]
    pulled_at: datetime
    idle: float = 0.0
    removed_at: datetime | None = None
