"""What containers wrote, as the engine kept it: with its own times, for as long as the container is there.

A stream of the engine ends when its container stops. To follow an app is to look every so often which containers it has, and to
read on in each of them from the last line that was seen, so that neither a restart nor another revision interrupts it.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct

from boreas_agent.drivers.docker_api import Refused
from boreas_agent.drivers.docker_streams import Streams, frames
from boreas_agent.errors import Conflict
from boreas_agent.model import OutputLine, OutputQuery, Stream

BATCH = 1000
LOOK_AGAIN_SECONDS = 1.0
_STREAMS: Mapping[int, Stream] = {1: "stdout", 2: "stderr"}
_EPOCH = "1970-01-01T00:00:00.000000000Z"


class Source(Struct, frozen=True):
    """A container of the app, and which replica it is."""

    ref: str
    replica: int


@dataclass(slots=True)
class _Place:
    """How far a container has been read: the engine's own words for the time of the last line, by stream."""

    last: dict[Stream, str] = field(default_factory=dict)
    since: str = _EPOCH

    @property
    def oldest(self) -> str:
        """From where on there may be lines that were not seen."""
        return min(self.last.values(), default=self.since)


class Output:
    """The output of one app. ``sources`` lists its containers, oldest first."""

    def __init__(self, streams: Streams, app: str, query: OutputQuery, sources: Callable[[], Awaitable[Sequence[Source]]]) -> None:
        self._streams = streams
        self._app = app
        self._query = query
        self._sources = sources
        self._places: dict[str, _Place] = {}

    async def lines(self) -> AsyncIterator[Sequence[OutputLine]]:
        """In batches; see ``base.Driver.output``."""
        begin = _nanoseconds(datetime.now(UTC)) if self._query.tail == 0 else self._since
        read = False
        async for batch in self._past(await self._chosen()):
            yield batch
            read = True
        if not read:
            yield ()
        if not self._query.follow:
            return
        for place in self._places.values():
            place.since = begin
        async with aclosing(self._news()) as news:
            async for batch in news:
                yield batch

    @property
    def _since(self) -> str:
        return _EPOCH if self._query.since is None else _nanoseconds(self._query.since)

    async def _chosen(self) -> Sequence[Source]:
        wanted = self._query.replica
        found = [source for source in await self._sources() if wanted is None or source.replica == wanted]
        self._places = {source.ref: self._places.get(source.ref) or _Place() for source in found}
        return found

    # --- what there is

    async def _past(self, sources: Sequence[Source]) -> AsyncIterator[Sequence[OutputLine]]:
        """All of it by time, and of all of it the last ``tail`` lines."""
        if self._query.tail == 0:
            return
        kept: list[OutputLine] = []
        async with aclosing(_by_time([self._of(source, follow=False) for source in sources])) as lines:
            async for line in lines:
                kept.append(line)
                if self._query.tail is not None:
                    del kept[: -self._query.tail]
                elif len(kept) >= BATCH:
                    yield kept
                    kept = []
        if kept:
            yield kept

    # --- what comes

    async def _news(self) -> AsyncGenerator[Sequence[OutputLine], None]:
        queue: asyncio.Queue[OutputLine] = asyncio.Queue(BATCH)
        readers: dict[str, asyncio.Task[None]] = {}
        looking = asyncio.create_task(self._keep_reading(readers, queue))
        try:
            while True:
                waiting = asyncio.create_task(queue.get())
                await asyncio.wait({waiting, looking}, return_when=asyncio.FIRST_COMPLETED)
                if not waiting.done():
                    waiting.cancel()
                    looking.result()  # raises why nobody looks any more
                    return
                batch = [waiting.result()]
                while not queue.empty() and len(batch) < BATCH:
                    batch.append(queue.get_nowait())
                yield batch
        finally:
            tasks = (looking, *readers.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep_reading(self, readers: dict[str, asyncio.Task[None]], queue: asyncio.Queue[OutputLine]) -> None:
        """A reader for each container; one whose container had stopped begins anew where it was. Raises why one cannot read."""
        while True:
            for reader in readers.values():
                if reader.done():
                    reader.result()
            for source in await self._chosen():
                reading = readers.get(source.ref)
                if reading is None or reading.done():
                    readers[source.ref] = asyncio.create_task(self._read(source, queue))
            for ref in readers.keys() - self._places.keys():
                if readers[ref].done():
                    del readers[ref]
            await asyncio.sleep(LOOK_AGAIN_SECONDS)

    async def _read(self, source: Source, queue: asyncio.Queue[OutputLine]) -> None:
        async with aclosing(self._of(source, follow=True)) as lines:
            async for line in lines:
                await queue.put(line)

    # --- one container

    async def _of(self, source: Source, *, follow: bool) -> AsyncGenerator[OutputLine, None]:
        """The lines of a container that were not seen yet. One that is gone has none."""
        place, streams = self._places[source.ref], self._query.stream
        asked = {
            "timestamps": "1",
            "stdout": str(int(streams != "stderr")),
            "stderr": str(int(streams != "stdout")),
            "follow": str(int(follow)),
        }
        since = place.oldest if follow else self._since
        if since != _EPOCH:
            asked["since"] = _seconds(since)
        if not follow and self._query.tail is not None:
            asked["tail"] = str(self._query.tail)
        chunks = self._streams.logs(source.ref, asked, f"read the output of {self._app}")
        try:
            async with aclosing(chunks), aclosing(_split(chunks)) as lines:
                async for stream, line in lines:
                    at, _, text = line.partition(b" ")
                    when = at.decode("ascii", "replace")
                    if when <= place.last.get(stream, place.since):
                        continue
                    place.last[stream] = when
                    yield OutputLine(datetime.fromisoformat(when), source.replica, stream, text.removesuffix(b"\r"))
        except Refused as error:
            if error.status in (404, 409):
                return
            raise Conflict(str(error)) from error


async def _split(chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[tuple[Stream, bytes], None]:
    """The lines of the two streams; the engine ends each with a newline, but the last."""
    pending = {stream: bytearray() for stream in _STREAMS}
    async with aclosing(frames(chunks)) as pieces:
        async for stream, piece in pieces:
            if stream in pending:
                *lines, rest = (pending[stream] + piece).split(b"\n")
                pending[stream] = bytearray(rest)
                for line in lines:
                    yield _STREAMS[stream], bytes(line)
    for stream, rest in pending.items():
        if rest:
            yield _STREAMS[stream], bytes(rest)


async def _by_time(sources: Sequence[AsyncGenerator[OutputLine, None]]) -> AsyncGenerator[OutputLine, None]:
    """``heapq.merge`` for asynchronous iterators."""
    heads: list[tuple[datetime, int, OutputLine]] = []
    try:
        for index, source in enumerate(sources):
            if (line := await anext(source, None)) is not None:
                heapq.heappush(heads, (line.at, index, line))
        while heads:
            _, index, line = heapq.heappop(heads)
            yield line
            if (follower := await anext(sources[index], None)) is not None:
                heapq.heappush(heads, (follower.at, index, follower))
    finally:
        for source in sources:
            await source.aclose()


def _nanoseconds(moment: datetime) -> str:
    """A time in the engine's words."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}000Z"


def _seconds(when: str) -> str:
    """The engine's words for a time as it wants to hear them: seconds since the epoch, with nanoseconds."""
    whole, _, fraction = when.removesuffix("Z").partition(".")
    return f"{int(datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp())}.{fraction.ljust(9, '0')}"


def sources(summaries: Sequence[tuple[Any, Mapping[str, Any]]]) -> Sequence[Source]:
    """From the engine's list, with the card of each container, oldest first."""
    ordered = sorted(summaries, key=lambda listed: int(listed[1].get("Created") or 0))
    return [Source(str(summary["Id"]), card.name.replica) for card, summary in ordered]
