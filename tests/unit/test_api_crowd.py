"""Clients that are silent, slow or too many: they lose their connections, and nobody else notices."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from boreas_agent.api import Security, connection, handshake, places
from boreas_agent.api.places import MAX_CONNECTIONS, Places
from boreas_agent.settings import Server
from tests.certificates import Authority
from tests.unit.api_harness import Api, run, seed
from tests.waiting import eventually_async

HEALTH = b"GET /v1/health HTTP/1.1\r\nHost: a\r\n\r\n"
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The deadlines of a connection, shortened."""
    monkeypatch.setattr(places, "ROUND_SECONDS", 0.05)
    monkeypatch.setattr(connection, "REQUEST_SECONDS", 0.3)
    monkeypatch.setattr(connection, "STALLED_SECONDS", 0.3)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is closed because of the time alone."""
    monkeypatch.setattr(connection, "REQUEST_SECONDS", 600.0)
    monkeypatch.setattr(handshake, "HANDSHAKE_SECONDS", 600.0)


@pytest.fixture
def secure(tmp_path: Path) -> Security:
    pair = Authority(tmp_path).leaf("server")
    return Security.open(Server(tls_cert=str(pair.cert), tls_key=str(pair.key)))


@asynccontextmanager
async def crowd(api: Api, count: int) -> AsyncIterator[list[Stream]]:
    """So many connections that say nothing."""
    streams = [await asyncio.open_connection("127.0.0.1", api.port) for _ in range(count)]
    try:
        yield streams
    finally:
        for _, writer in streams:
            writer.transport.abort()


async def answers(stream: Stream, request: bytes = HEALTH) -> bool:
    """The connection is there, and one more request on it is answered."""
    reader, writer = stream
    try:
        writer.write(request)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        await asyncio.wait_for(reader.readexactly(length), 20)
    except (ConnectionError, asyncio.IncompleteReadError):
        return False
    return head.startswith(b"HTTP/1.1 200")


async def closed(stream: Stream, seconds: float = 10) -> bool:
    """The other end has closed it."""
    try:
        return await asyncio.wait_for(stream[0].read(1), seconds) == b""
    except ConnectionError:
        return True


def test_a_newcomer_takes_the_place_of_the_connection_that_was_idle_longest(patient: None) -> None:
    async def test(api: Api) -> None:
        async with crowd(api, MAX_CONNECTIONS) as streams:
            assert await answers(streams[0])  # so the second is now the one that was idle longest
            newcomers = [await asyncio.open_connection("127.0.0.1", api.port) for _ in range(3)]
            for newcomer in newcomers:
                assert await answers(newcomer)
            for evicted in streams[1:4]:
                assert await closed(evicted)
            assert await answers(streams[0])
            assert await answers(streams[-1])
            for _, writer in newcomers:
                writer.transport.abort()
        assert (await api.get("/v1/health")).status == 200

    run(test)


def test_a_flood_is_one_line_in_the_log(patient: None, caplog: pytest.LogCaptureFixture) -> None:
    async def test(api: Api) -> None:
        async with crowd(api, MAX_CONNECTIONS + 40):
            assert (await api.get("/v1/health")).status == 200

    run(test)
    lines = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.getMessage() for record in lines] == ["too many connections: closed those idle longest"]


def test_half_begun_tls_handshakes_do_not_keep_others_out(patient: None, secure: Security) -> None:
    async def test(api: Api) -> None:
        async with crowd(api, MAX_CONNECTIONS + 5) as streams:
            for stream in streams[:5]:
                assert await closed(stream)
            async with api.session.get(f"{api.url}/v1/health", ssl=False) as answer:
                assert answer.status == 200

    run(test, security=secure)


def test_a_connection_that_says_nothing_or_half_a_request_is_closed(impatient: None) -> None:
    async def test(api: Api) -> None:
        for beginning in (b"", b"GET ", b"GET /v1/health HTTP/1.1\r\nHost: a\r\n"):
            stream = await asyncio.open_connection("127.0.0.1", api.port)
            stream[1].write(beginning)
            assert await closed(stream)
            stream[1].close()

    run(test)


def test_dripping_a_request_byte_by_byte_does_not_hold_a_connection(impatient: None) -> None:
    async def test(api: Api) -> None:
        stream = await asyncio.open_connection("127.0.0.1", api.port)
        watching = asyncio.create_task(closed(stream))

        async def dripped() -> bool:
            if not stream[1].is_closing():
                stream[1].write(b"x")
            return watching.done()

        stream[1].write(b"GET /")
        await eventually_async(dripped)
        assert watching.result()
        stream[1].transport.abort()

    run(test)


def test_between_two_requests_a_connection_may_rest_but_not_in_the_middle_of_the_next_one(impatient: None) -> None:
    async def test(api: Api) -> None:
        resting, half = [await asyncio.open_connection("127.0.0.1", api.port) for _ in range(2)]
        assert await answers(resting)
        assert await answers(half)
        half[1].write(b"GET /v1/health HTTP")
        assert await closed(half)  # by then the other one has rested for as long
        assert await answers(resting)
        for _, writer in (resting, half):
            writer.transport.abort()

    run(test)


def test_a_request_whose_answer_is_held_back_is_not_given_up(impatient: None) -> None:
    async def test(api: Api) -> None:
        answer = await api.apply(seed(), "?wait=1.5")
        assert (answer.status, answer.json["status"]) == (200, "pending")

    run(test)


def test_a_client_that_takes_no_answers_is_given_up(impatient: None) -> None:
    async def test(api: Api) -> None:
        for number in range(20):
            await api.apply(seed(app=f"app-{number}"))
        stream = await asyncio.open_connection("127.0.0.1", api.port, limit=1024)  # it stops reading when a few KiB wait
        _, writer = stream
        sent = 0

        async def given_up() -> bool:
            nonlocal sent
            if sent < 20_000 and not writer.is_closing():
                writer.write(b"GET /v1/status HTTP/1.1\r\nHost: a\r\n\r\n" * 200)
                sent += 200
            return writer.is_closing()

        await eventually_async(given_up, 30)
        assert (await api.get("/v1/health")).status == 200

    run(test)


class Busy:
    """A guest for whom the agent is at work."""

    def __init__(self) -> None:
        self.evicted = False

    def idle_since(self) -> float | None:
        return None

    def look_after(self, now: float) -> None: ...

    def evict(self) -> None:
        self.evicted = True


def test_connections_that_are_worked_for_are_never_evicted_and_a_newcomer_is_turned_away() -> None:
    async def test() -> None:
        hall = Places()
        guests = [Busy() for _ in range(MAX_CONNECTIONS)]
        assert all(hall.enter(guest) for guest in guests)
        assert not hall.enter(Busy())
        assert not any(guest.evicted for guest in guests)
        hall.leave(guests[0])
        hall.leave(guests[0])
        assert hall.enter(Busy())
        assert not hall.enter(Busy())
        hall.close()
        assert all(guest.evicted for guest in guests[1:])

    asyncio.run(test())
