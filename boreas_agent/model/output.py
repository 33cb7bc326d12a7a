"""What apps write, line by line, and which of it is asked for."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from msgspec import Struct

Stream = Literal["stdout", "stderr"]
STREAMS: tuple[Stream, ...] = ("stdout", "stderr")


class OutputQuery(Struct, frozen=True):
    """Which lines: the last ``tail`` (None: all that are kept), none from before ``since``, of one stream or replica or of all.

    ``follow``: afterwards those that are written from then on, as they come, whatever becomes of the instances meanwhile.
    """

    tail: int | None = None
    since: datetime | None = None
    stream: Stream | None = None
    replica: int | None = None
    follow: bool = False


class OutputLine(Struct, frozen=True):
    """One line without its end. ``at``: when it was written, or, of processes, first seen to have been."""

    at: datetime
    replica: int
    stream: Stream
    text: bytes
