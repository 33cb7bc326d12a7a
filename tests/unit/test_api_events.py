"""What happened: pages of it, and streams that can be taken up again."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import ClientResponse, ClientSession

from boreas_agent.api import events
from boreas_agent.api.server import SHUTDOWN_SECONDS
from boreas_agent.model import Event
from tests.unit.api_harness import SEED, Api, run, seed, serving
from tests.waiting import eventually_async


async def happened(api: Api, *kinds: str, app: str | None = None) -> None:
    for kind in kinds:
        await api.store.record_events([Event(kind, f"{kind} it is\nsecond line: ünï", app)])


class Stream:
    """A reader of Server-Sent Events that knows no more than the standard says."""

    def __init__(self, answer: ClientResponse) -> None:
        self.answer = answer
        self.ids: list[str] = []

    async def next(self) -> dict[str, Any]:
        """The next event; comments and other fields are passed over."""
        data: list[str] = []
        while True:
            line = (await asyncio.wait_for(self.answer.content.readline(), 20)).decode()
            assert line, "the stream has ended"
            name, _, value = line.rstrip("\r\n").partition(": ")
            if name == "data":
                data.append(value)
            elif name == "id":
                self.ids.append(value)
            elif not name and data:
                return dict(json.loads("\n".join(data)))

    async def kinds(self, count: int) -> list[str]:
        return [(await self.next())["kind"] for _ in range(count)]


@asynccontextmanager
async def following(api: Api, query: str = "", **headers: str) -> AsyncIterator[Stream]:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    async with api.session.get(f"{api.url}/v1/events?follow=1{query}", headers=sent) as answer:
        assert answer.status == 200, await answer.text()
        assert answer.content_type == "text/event-stream"
        yield Stream(answer)


def test_events_are_listed_oldest_first_and_name_where_to_go_on() -> None:
    async def test(api: Api) -> None:
        await api.apply(SEED)
        await happened(api, "A", "B", "C")
        answer = (await api.get("/v1/events")).json
        assert [event["kind"] for event in answer["events"]] == ["Applied", "A", "B", "C"]
        assert set(answer["events"][0]) == {"id", "at", "app", "revision", "kind", "message"}
        assert (answer["events"][0]["app"], answer["events"][0]["revision"], answer["events"][1]["app"]) == ("my-app", 1, None)
        ids = [event["id"] for event in answer["events"]]
        assert (ids, answer["next"]) == (sorted(ids), ids[-1])
        assert (await api.get(f"/v1/events?after={ids[-1]}")).json == {"events": [], "next": ids[-1]}
        assert [event["kind"] for event in (await api.get(f"/v1/events?after={ids[1]}&limit=1")).json["events"]] == ["B"]
        assert [event["kind"] for event in (await api.get("/v1/events?limit=2")).json["events"]] == ["B", "C"]
        assert [event["kind"] for event in (await api.get("/v1/events?app=my-app&after=0")).json["events"]] == ["Applied"]
        assert len((await api.get("/v1/events?app=")).json["events"]) == 4
        assert (await api.get("/v1/events?app=unknown")).json == {"events": [], "next": None}

    run(test)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("?after=x", "after"),
        ("?after=-1", "after"),
        ("?after=", "after"),
        ("?limit=0", "limit"),
        ("?follow=maybe", "follow"),
        ("?app=a/b", "app"),
        ("?app=a%00", "app"),
        ("?follow=1&after=1.5", "after"),
    ],
)
def test_a_query_that_makes_no_sense_is_refused_by_name(query: str, field: str) -> None:
    async def test(api: Api) -> None:
        answer = await api.get(f"/v1/events{query}")
        assert (answer.status, answer.fields) == (422, [field])

    run(test)


def test_a_stream_begins_with_the_newest_and_goes_on_as_things_happen() -> None:
    async def test(api: Api) -> None:
        await happened(api, "A", "B")
        async with following(api, "&limit=1") as stream:
            assert await stream.kinds(1) == ["B"]
            await happened(api, "C")
            event = await stream.next()
            assert (event["kind"], event["message"]) == ("C", "C it is\nsecond line: ünï")
            await api.apply(SEED)
            assert await stream.kinds(1) == ["Applied"]
            assert stream.ids == [str(row["id"]) for row in await api.store.events(None, 1, 10)]

    run(test)


def test_a_stream_of_one_app_tells_nothing_of_the_others() -> None:
    async def test(api: Api) -> None:
        async with following(api, "&app=my-app") as stream:
            await api.apply(seed(app="other"))
            await api.apply(SEED)
            event = await stream.next()
            assert (event["app"], event["kind"]) == ("my-app", "Applied")

    run(test)


def test_a_reader_that_comes_back_misses_nothing_and_gets_nothing_twice() -> None:
    async def test(api: Api) -> None:
        await happened(api, "A")
        async with following(api, "&after=0") as stream:
            assert await stream.kinds(1) == ["A"]
        await happened(api, *(f"B{n}" for n in range(events.PAGE + 10)))
        async with following(api, "&after=0", Last_Event_ID=stream.ids[-1]) as again:
            assert await again.kinds(events.PAGE + 10) == [f"B{n}" for n in range(events.PAGE + 10)]
        answer = await api.send("GET", "/v1/events?follow=1", headers={"Last-Event-ID": "x", "Content-Type": ""})
        assert (answer.status, answer.fields) == (422, ["Last-Event-ID"])

    run(test)


def test_a_reader_of_a_history_that_was_lost_is_given_the_new_one() -> None:
    async def test(api: Api) -> None:
        await happened(api, "A", "B")
        async with following(api, Last_Event_ID="629") as stream:
            assert await stream.kinds(2) == ["A", "B"]
        async with following(api, "&after=629") as stream:  # an id of the reader's own choosing is taken at its word
            async with following(api, "&after=1") as other:
                await happened(api, "C")
                assert await other.kinds(2) == ["B", "C"]
            assert stream.ids == []

    run(test)


def test_a_silent_stream_is_kept_alive_by_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "HEARTBEAT_SECONDS", 0.05)

    async def test(api: Api) -> None:
        async with following(api) as stream:
            lines = [await asyncio.wait_for(stream.answer.content.readline(), 20) for _ in range(4)]
            assert lines == [b"retry: 1000\n", b"\n", b": ping\n", b"\n"]

    run(test)


def test_streams_are_counted_and_one_too_many_is_told_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MOST_READERS", 2)

    async def test(api: Api) -> None:
        async with following(api), following(api):
            refused = await api.get("/v1/events?follow=1")
            assert (refused.status, refused.headers["Retry-After"]) == (503, "5")
            assert (await api.get("/v1/events")).status == 200

        async def there_is_room() -> bool:
            async with api.session.get(f"{api.url}/v1/events?follow=1") as answer:
                return answer.status == 200

        await eventually_async(there_is_room)

    run(test)


def test_a_stopping_agent_ends_its_streams_by_itself() -> None:
    async def whole() -> float:
        async with ClientSession() as session:
            async with serving() as api:
                answer = await session.get(f"{api.url}/v1/events?follow=1")
                began = time.monotonic()
            assert (await answer.read()).startswith(b"retry: ")
            return time.monotonic() - began

    assert asyncio.run(whole()) < SHUTDOWN_SECONDS
