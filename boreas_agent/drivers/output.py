"""What processes wrote, read from their logs. The processes write the files themselves, the keeper bounds them and notes when.

A log is never renamed or copied: what is bounded away is a hole at its start, so an offset means the same for as long as the
file is there, and whoever reads on from one misses and doubles nothing, over restarts of app, agent and keeper alike.
All of it touches the disk, so it runs in the driver's thread.
"""

from __future__ import annotations

import heapq
import os
import struct
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from boreas_agent.drivers.runs import Layout
from boreas_agent.model import STREAMS, OutputLine, OutputQuery, Stream

CHUNK = 64 * 1024
LONGEST_LINE = 1024 * 1024
"""A longer one is given in pieces."""
_NOTE = struct.Struct("<qd")


@dataclass(slots=True)
class Reader:
    """Reads on in one log: ``offset`` is where the next line begins."""

    path: Path
    replica: int
    stream: Stream
    offset: int = 0
    _notes: deque[tuple[int, float]] = field(default_factory=deque)

    def begin(self, query: OutputQuery) -> None:
        """Go to the first line that is asked for."""
        with suppress(OSError), self.path.open("rb") as file:
            start = _first(file.fileno())
            if query.since is not None:
                start = max(start, self._at(query.since))
            if query.tail is not None:
                start = max(start, _before_end(file.fileno(), start, query.tail))
            self.offset = start

    def lines(self, *, whole: bool) -> Iterator[OutputLine]:
        """The lines from ``offset`` on. ``whole``: one that has no end yet is left for the next time."""
        try:
            file = self.path.open("rb")
        except OSError:
            return
        with file:
            end = self._catch_up(file.fileno())
            if self.offset >= end:
                return
            self._notes = deque(self._noted(file.fileno(), end, whole=whole))
            pending = b""
            while chunk := os.pread(file.fileno(), max(0, min(CHUNK, end - self.offset - len(pending))), self.offset + len(pending)):
                if _data(file.fileno()) > self.offset:  # bounded away while it was read
                    self.offset, pending = _first(file.fileno()), b""
                    continue
                *lines, pending = (pending + chunk).split(b"\n")
                for line in lines:
                    self.offset += len(line) + 1
                    yield self._line(line)
                if len(pending) > LONGEST_LINE:
                    self.offset += len(pending)
                    yield self._line(pending)
                    pending = b""
            if pending and not whole:
                self.offset += len(pending)
                yield self._line(pending)

    def _catch_up(self, fd: int) -> int:
        """What was bounded away before it was read is skipped; a file that was begun anew is read from its start. Its size."""
        size = os.fstat(fd).st_size
        if size < self.offset:
            self.offset = 0
        if self.offset < size:
            self.offset = max(self.offset, _first(fd))
        return size

    def _line(self, text: bytes) -> OutputLine:
        while len(self._notes) > 1 and self._notes[0][0] < self.offset:
            self._notes.popleft()
        at = datetime.fromtimestamp(self._notes[0][1], UTC)
        return OutputLine(at, self.replica, self.stream, text.removesuffix(b"\r"))

    def _noted(self, fd: int, end: int, *, whole: bool) -> list[tuple[int, float]]:
        """The notes of what is to be read, up to ``end``.

        Where the keeper has not noted the end yet that is done here: a line that was given with a time has the same one whenever it
        is asked for again. The keeper may come between, so the first note in the file is the one that counts.
        """
        notes = _notes(self.path, self.offset)
        if notes and notes[-1][0] >= end:
            return notes
        if not whole:
            return [*notes, (end, os.fstat(fd).st_mtime)]
        now = time.time()
        with suppress(OSError), self.path.with_suffix(".times").open("ab") as file:
            file.write(_NOTE.pack(end, now))
        return _notes(self.path, self.offset) or [(end, now)]

    def _at(self, since: datetime) -> int:
        """Where what was written at ``since`` or later begins."""
        before = 0
        for size, at in _notes(self.path, 0):
            if datetime.fromtimestamp(at, UTC) >= since:  # rounded as it is for a line
                break
            before = size
        return before


def _notes(path: Path, offset: int) -> list[tuple[int, float]]:
    """When the log had which size (``keeper.logs.note``), from the first size beyond ``offset`` on."""
    try:
        with path.with_suffix(".times").open("rb") as file:
            fd, count = file.fileno(), os.fstat(file.fileno()).st_size // _NOTE.size
            first = bisect_right(range(count), offset, key=lambda index: _NOTE.unpack(os.pread(fd, _NOTE.size, index * _NOTE.size))[0])
            return list(_NOTE.iter_unpack(os.pread(fd, (count - first) * _NOTE.size, first * _NOTE.size)))
    except OSError:
        return []


def _first(fd: int) -> int:
    """Where the first whole line begins that is still there."""
    data = _data(fd)
    if data == 0:
        return 0
    block = os.pread(fd, LONGEST_LINE, data)
    zeros = len(block) - len(block.lstrip(b"\0"))
    found = block.find(b"\n", zeros)
    return data + found + 1 if found >= 0 else data + zeros


def _data(fd: int) -> int:
    """Where the hole at the start of the file ends."""
    try:
        return os.lseek(fd, 0, os.SEEK_DATA)
    except OSError:  # nothing but a hole, or a file system that knows of none
        found = os.fstat(fd)
        return found.st_size if found.st_blocks == 0 else 0


def _before_end(fd: int, start: int, lines: int) -> int:
    """Where the last so many lines begin, not before ``start``."""
    end = os.fstat(fd).st_size
    if lines <= 0 or end <= start:
        return end
    wanted = lines + (os.pread(fd, 1, end - 1) == b"\n")
    while end > start:
        begin = max(start, end - CHUNK)
        block = os.pread(fd, end - begin, begin)
        found = block.count(b"\n")
        if found >= wanted:
            place = len(block)
            for _ in range(wanted):
                place = block.rfind(b"\n", 0, place)
            return begin + place + 1
        wanted -= found
        end = begin
    return start


class Output:
    """All logs of one app that a query asks for, together in the order of their times."""

    def __init__(self, layout: Layout, app: str, query: OutputQuery) -> None:
        self._folder = layout.apps / app / "logs"
        self._query = query
        self._readers: dict[Path, Reader] = {}
        self._news: Iterator[OutputLine] | None = None

    def past(self) -> Iterator[OutputLine]:
        """The lines that there are, each log read as it goes."""
        query = self._query
        for reader in self._found():
            reader.begin(query)
        lines = self._merged(whole=query.follow)
        if query.since is not None:
            since = query.since
            lines = (line for line in lines if line.at >= since)
        return lines if query.tail is None else iter(deque(lines, maxlen=query.tail))

    def news(self, most: int) -> Sequence[OutputLine]:
        """At most so many of the lines that came since the last time; fewer only where there are no more."""
        if self._news is None:
            self._found()
            self._news = self._merged(whole=True)
        lines = list(islice(self._news, most))
        if len(lines) < most:
            self._news = None
        return lines

    def _merged(self, *, whole: bool) -> Iterator[OutputLine]:
        return heapq.merge(*(reader.lines(whole=whole) for reader in self._readers.values()), key=lambda line: line.at)

    def _found(self) -> Sequence[Reader]:
        """The logs that were not there the last time."""
        streams = (self._query.stream,) if self._query.stream else STREAMS
        new: list[Reader] = []
        with suppress(OSError):
            for entry in sorted(os.scandir(self._folder), key=lambda entry: entry.name):
                replica, _, rest = entry.name.partition(".")
                path = Path(entry.path)
                if path in self._readers or not replica.isdecimal() or not rest.endswith(".log"):
                    continue
                stream = next((stream for stream in streams if rest == f"{stream}.log"), None)
                if stream is not None and self._query.replica in (None, int(replica)):
                    self._readers[path] = Reader(path, int(replica), stream)
                    new.append(self._readers[path])
        return new
