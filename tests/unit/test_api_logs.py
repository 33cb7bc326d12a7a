"""What an app wrote, over HTTP."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from boreas_agent.model import OutputLine
from tests.unit.api_harness import Api, pkg, run, seed

LINES = [
    OutputLine(datetime(2026, 1, 2, 3, 4, second, 500_000, tzinfo=UTC), 0, "stdout", text)
    for second, text in enumerate((b"one", b"two \xff", b"three"))
]


def test_lines_come_as_they_were_written_and_on_demand_with_their_times() -> None:
    async def test(api: Api) -> None:
        await api.apply(seed())
        api.world.written["my-app"] = LINES
        async with api.session.get(f"{api.url}/v1/apps/my-app/logs") as answer:
            assert answer.status == 200
            assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
            assert await answer.read() == b"one\ntwo \xff\nthree\n"
        timed = await api.get("/v1/apps/my-app/logs?timestamps=1&tail=1")
        assert timed.text == "2026-01-02T03:04:02.500Z three\n"
        later = await api.get("/v1/apps/my-app/logs?since=2026-01-02T03:04:02Z")
        assert later.text == "three\n"

    run(test)


def test_an_app_that_wrote_nothing_has_an_empty_answer_and_an_unknown_one_none() -> None:
    async def test(api: Api) -> None:
        await api.apply(seed())
        empty = await api.get("/v1/apps/my-app/logs")
        assert (empty.status, empty.text) == (200, "")
        assert (await api.send("HEAD", "/v1/apps/my-app/logs?follow=1", headers={"Content-Type": ""})).status == 200
        assert (await api.get("/v1/apps/other/logs")).status == 404

    run(test)


def test_what_comes_is_sent_as_it_comes_until_the_app_is_gone() -> None:
    async def test(api: Api) -> None:
        await api.apply(seed())
        api.world.written["my-app"] = LINES[:1]
        async with asyncio.timeout(20), api.session.get(f"{api.url}/v1/apps/my-app/logs?follow=1") as answer:
            assert await answer.content.readline() == b"one\n"
            api.world.writing.put_nowait(LINES[2])
            assert await answer.content.readline() == b"three\n"
            await api.send("DELETE", "/v1/apps/my-app")
            await api.is_gone("my-app")
            assert await answer.content.read() == b""

    run(test)


def test_an_engine_that_is_away_is_said_so() -> None:
    async def test(api: Api) -> None:
        await api.apply(seed())
        api.world.away.add("docker")
        answer = await api.get("/v1/apps/my-app/logs")
        assert (answer.status, answer.headers["Content-Type"]) == (503, "application/problem+json")

    run(test)


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ("tail=-1", ["tail"]),
        ("tail=x&stream=both", ["tail", "stream"]),
        ("replica=a", ["replica"]),
        ("since=yesterday", ["since"]),
        ("since=2026-01-02T03:04:05", ["since"]),
        ("since=0001-01-01T00:00:00%2B23:59", ["since"]),
        ("since=9999-12-31T23:59:59-23:59", ["since"]),
        ("follow=maybe", ["follow"]),
        ("timestamps=2", ["timestamps"]),
    ],
)
def test_a_query_that_means_nothing_is_refused_by_name(query: str, fields: list[str]) -> None:
    async def test(api: Api) -> None:
        await api.apply(pkg())
        answer = await api.get(f"/v1/apps/my-app/logs?{query}")
        assert answer.status == 422
        assert answer.fields == fields

    run(test)
