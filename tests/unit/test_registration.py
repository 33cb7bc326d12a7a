"""Registering with a controller that answers, refuses, hangs, or is something else altogether."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from boreas_agent import registration
from boreas_agent.clock import SystemClock
from boreas_agent.notices import Notices
from boreas_agent.registration import Registrant, Registrar, reachable_url, without_credentials
from boreas_agent.store.store import Store
from tests.unit.store_harness import kinds, opened
from tests.waiting import eventually_async

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch):
    monkeypatch.setattr(registration, "MOST_RETRY_SECONDS", 0.05)


def answering(answer: bytes, taken: list[bytes] | None = None) -> Serve:
    """Reads a whole request, answers these very bytes, and closes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"}")
        if taken is not None:
            taken.append(request)
        writer.write(answer)
        with suppress(ConnectionError):
            await writer.drain()
        writer.close()

    return serve


def http(status: str, body: str = "", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers, "", body]
    return "\r\n".join(lines).encode()


@asynccontextmanager
async def server(serve: Serve, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """The base url of a server of one's own."""
    tasks: set[asyncio.Task[None]] = set()

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await serve(reader, writer)
        finally:
            tasks.discard(task)
            writer.close()

    listening = await asyncio.start_server(served, "127.0.0.1", 0, ssl=tls)
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    finally:
        listening.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def registering(store: Store, url: str, timeout: float = 10.0) -> AsyncIterator[Registrar]:
    """A registrar at work."""
    clock = SystemClock()
    registrar = Registrar(Registrant(url, "pm-1", "http://pm-1:8081"), 1.0, clock, Notices(store.record_events, clock), timeout)
    task = asyncio.create_task(registrar.run())
    try:
        yield registrar
    finally:
        assert not task.done(), "nothing that the controller does may end it"
        task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.wait_for(task, 5)


async def fails(registrar: Registrar, words: str) -> None:
    """Wait until the last try ended with these words."""

    async def it_does() -> bool:
        return words in (registrar.registration.last_error or "")

    try:
        await eventually_async(it_does)
    except AssertionError:
        raise AssertionError(f"expected {words!r}, not {registrar.registration.last_error!r}") from None
    assert not registrar.registration.registered


async def succeeds(registrar: Registrar) -> None:
    async def it_does() -> bool:
        return registrar.registration.registered

    await eventually_async(it_does)


@pytest.mark.parametrize(
    "answer",
    [
        http("200 OK", '{"success": true}'),
        http("201 Created"),
        http("204 No Content"),
        http("200 OK", "<html>"),
        http("200 OK", "[" * 10_000),
        http("409 Conflict", '{"message": "agent pm-1 exists"}'),
    ],
    ids=["200", "201", "204", "not-json", "deep-json", "known-already"],
)
def test_a_yes_in_any_form_is_a_yes(tmp_path, answer):
    taken: list[bytes] = []

    async def test() -> None:
        async with opened(tmp_path) as store, server(answering(answer, taken)) as url, registering(store, f"{url}/base") as registrar:
            await succeeds(registrar)
            head, _, body = taken[0].partition(b"\r\n\r\n")
            assert head.startswith(b"POST /base/api/v1/agents HTTP/1.1\r\n")
            assert b"Content-Type: application/json" in head
            assert json.loads(body) == {"agent_id": "pm-1", "agent_url": "http://pm-1:8081"}

    asyncio.run(test())


NOES = {
    http("500 Internal Server Error", '{"message": "no \\u001b[31mdatabase"}'): "it answered 500: no [31mdatabase",
    http("404 Not Found", "<html>"): "it answered 404",
    http("401 Unauthorized", json.dumps({"error": "x" * 5000})): f"it answered 401: {'x' * 200}…",
    http("200 OK", '{"success": false, "message": "unknown id"}'): "it answered 200 without success: unknown id",
    http("302 Found", "", "Location: https://me:pw@elsewhere/?token=1"): "it answered 302, go to https://***@elsewhere/; redirects are not "
    "followed, correct agent.operator.url",
    http("302 Found", "", "Location: http://[bad"): "it answered 302; redirects",
    b"\x16\x03\x01 garbage\r\n\r\n": "it does not speak HTTP as it should",
    b"": "it closed the connection without an answer",
    b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf": "it does not speak HTTP as it should",
    b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 100_000 + b"\r\n\r\n": "it does not speak HTTP as it should",
}


@pytest.mark.parametrize(("answer", "words"), NOES.items(), ids=[words[:30] for words in NOES.values()])
def test_whatever_else_it_answers_is_told_in_a_few_words_and_tried_again(tmp_path, answer, words):
    taken: list[bytes] = []

    async def test() -> None:
        async with opened(tmp_path) as store, server(answering(answer, taken)) as url, registering(store, url) as registrar:
            await fails(registrar, words)

            async def tried_again() -> bool:
                return len(taken) > 3

            await eventually_async(tried_again)

            async def said_once() -> bool:
                return await kinds(store, None) == ["OperatorUnreachable"]

            await eventually_async(said_once)

    asyncio.run(test())


def test_an_answer_without_end_is_read_only_at_its_beginning(tmp_path):
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        while True:
            writer.write(b" " * 65536)
            await writer.drain()

    async def test() -> None:
        async with opened(tmp_path) as store, server(endless) as url, registering(store, url) as registrar:
            await succeeds(registrar)

    asyncio.run(test())


def test_one_that_hangs_or_drips_is_given_up_after_the_deadline(tmp_path):
    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async def dripping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.01)

    async def test() -> None:
        async with opened(tmp_path) as store:
            for number, serve in enumerate((silent, dripping)):
                async with server(serve) as url, registering(store, url, timeout=0.2) as registrar:
                    await fails(registrar, "no answer within 0.2 s")
                    assert registrar.registration.since, number

    asyncio.run(test())


def test_a_certificate_that_nobody_vouches_for_and_a_port_without_tls_are_named(tmp_path):
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subject = ["-subj", "/CN=operator", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2", "-nodes"]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", *subject]
    subprocess.run([*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)

    async def test() -> None:
        async with opened(tmp_path) as store:
            async with server(answering(http("200 OK")), tls) as url, registering(store, url) as registrar:
                await fails(registrar, "its certificate is not trusted")
            async with server(answering(http("400 Bad Request"))) as url, registering(store, "https" + url[4:], timeout=0.5) as registrar:
                await eventually_async(lambda: _is(lambda: registrar.registration.last_error is not None))
                assert not registrar.registration.registered

    asyncio.run(test())


def test_a_name_that_does_not_exist_is_named_so(tmp_path, monkeypatch):
    def unknown(*_: object, **__: object) -> None:  # asking a real name server would leave this machine
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)

    async def test() -> None:
        async with opened(tmp_path) as store, registering(store, "http://operator-pm:8080") as registrar:
            await fails(registrar, "its name cannot be resolved")

    asyncio.run(test())


def test_a_name_is_looked_up_in_a_thread_of_its_own_and_leads_there(tmp_path):
    async def test() -> None:
        async with (
            opened(tmp_path) as store,
            server(answering(http("200 OK"))) as url,
            registering(store, url.replace("127.0.0.1", "localhost")) as registrar,
        ):
            await succeeds(registrar)

    asyncio.run(test())


def test_one_failed_try_is_no_loss_and_three_are(tmp_path):
    refusing = False

    async def moody(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal refusing
        await answering(http("503 Service Unavailable" if refusing else "200 OK"))(reader, writer)

    async def test() -> None:
        nonlocal refusing
        async with opened(tmp_path) as store, server(moody) as url, registering(store, url) as registrar:
            await succeeds(registrar)
            since = registrar.registration.since
            assert registrar.registration.last_error is None
            refusing = True
            await eventually_async(lambda: _is(lambda: not registrar.registration.registered))
            assert registrar.registration.last_error == "it answered 503"
            assert registrar.registration.since > since
            refusing = False
            await succeeds(registrar)
            expected = ["OperatorRegistered", "OperatorLost", "OperatorRegistered"]

            async def said() -> bool:
                return await kinds(store, None) == expected

            await eventually_async(said)

    asyncio.run(test())


async def _is(check: Callable[[], bool]) -> bool:
    return check()


@pytest.mark.parametrize(
    ("host", "scheme", "url"),
    [
        ("0.0.0.0", "http", "http://pm-1.example.com:8081"),
        ("::", "https", "https://pm-1.example.com:8081"),
        ("10.0.0.5", "http", "http://10.0.0.5:8081"),
        ("fd00::5", "http", "http://[fd00::5]:8081"),
        ("other-name", "http", "http://other-name:8081"),
    ],
)
def test_others_reach_the_agent_where_it_listens_or_by_the_machines_name(host, scheme, url):
    assert reachable_url(host, 8081, "pm-1.example.com", scheme) == url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://operator-pm:8080", "http://operator-pm:8080"),
        ("https://me:pw@operator-pm/base", "https://***@operator-pm/base"),
        ("https://token@operator-pm", "https://***@operator-pm"),
        ("https://a@b@operator-pm", "https://***@operator-pm"),
    ],
)
def test_an_address_is_shown_without_credentials(url, shown):
    assert without_credentials(url) == shown


def test_a_lookup_that_hangs_holds_one_thread_and_not_the_end(tmp_path, monkeypatch):
    gate = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: gate.wait(30))

    async def test() -> None:
        async with opened(tmp_path) as store, registering(store, "http://operator-pm:8080", timeout=0.1) as registrar:
            await fails(registrar, "its name cannot be resolved")
            assert sum(thread.name == "resolver" for thread in threading.enumerate()) == 1

    asyncio.run(test())
    gate.set()


def test_the_hidden_words_of_a_controller_are_short(tmp_path: Path):
    long = "\x1b]0;title\x07" * 1000

    async def test() -> None:
        answer = http("400 Bad Request", json.dumps({"detail": long}))
        async with opened(tmp_path) as store, server(answering(answer)) as url, registering(store, url) as registrar:
            await fails(registrar, "it answered 400")
            words = registrar.registration.last_error or ""
            assert words.isprintable()
            assert len(words) < 300

    asyncio.run(test())
