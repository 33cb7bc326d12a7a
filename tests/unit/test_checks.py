"""Asking ports: what counts as an answer, what is said of one that does not."""

from __future__ import annotations

import asyncio
import os
import resource
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trustme

from boreas_agent.checks import MOST_BYTES, ask
from boreas_agent.probing import Result
from boreas_agent.spec.probes import HttpCheck, TcpCheck

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(answer: bytes | Serve, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A port that answers every request with these bytes and hangs up, or does what it is told."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if callable(answer):
                await answer(reader, writer)
            else:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(answer)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield server.sockets[0].getsockname()[1]


_ALONE = """
import asyncio, fcntl, pathlib, socket, struct
from boreas_agent.checks import ask
from boreas_agent.spec.probes import HttpCheck, TcpCheck
with socket.socket() as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP
pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").write_text("40000 40001")
for check in (TcpCheck(port=40000), HttpCheck(port=40000)):
    print({asyncio.run(ask("127.0.0.1", check, 1)) for _ in range(20)})
"""


def asked(answer: bytes | Serve, seconds: float = 5.0, tls: ssl.SSLContext | None = None, **check: Any) -> Result:
    async def run() -> Result:
        async with serving(answer, tls) as port:
            result = await ask("127.0.0.1", HttpCheck(port=port, **check), seconds)
            return Result(result.ok, result.message.replace(str(port), "PORT"))

    return asyncio.run(run())


def reply(status: str, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@pytest.mark.parametrize("status", ["200 OK", "204 No Content", "302 Found", "399"])
def test_200_to_399_is_a_good_answer(status: str) -> None:
    assert asked(reply(status)) == Result(True)


@pytest.mark.parametrize(("status", "expected", "good"), [("404 x", "404", True), ("200 OK", "404", False), ("204 x", "200-203", False)])
def test_another_range_can_be_expected(status: str, expected: str, good: bool) -> None:
    assert asked(reply(status), expected_status=expected).ok is good


def test_a_bad_answer_is_told_with_the_beginning_of_its_body_on_one_line() -> None:
    result = asked(reply("503 x", b"db is\n\x1b[31mdown " + b"x" * 5000), path="/healthz?token=secret")
    assert result.ok is False
    assert result.message.startswith("HTTP 503 from :PORT/healthz: db is �[31mdown xxx")
    assert len(result.message) < 260


def test_a_chunked_answer_is_read_as_one() -> None:
    body = b"HTTP/1.1 500 x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\noops\r\n0\r\n\r\n"
    assert asked(body) == Result(False, "HTTP 500 from :PORT/: oops")


def test_an_interim_answer_is_not_the_answer() -> None:
    assert asked(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + reply("200 OK")) == Result(True)


def test_an_answer_that_ends_with_the_connection_is_whole() -> None:
    assert asked(b"HTTP/1.0 200 OK\r\n\r\nhello") == Result(True)


def test_a_redirect_is_an_answer_and_is_not_followed() -> None:
    visits: list[bytes] = []

    async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visits.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(reply("302 Found", b"", "Location: /other"))

    assert asked(redirect, expected_status="302") == Result(True)
    assert len(visits) == 1


def test_headers_are_sent_and_may_name_the_host() -> None:
    heard: list[str] = []

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(reply("200 OK"))

    assert asked(hear, path="/a?b=c", headers={"host": "example.com", "X-Token": "s3cret"}) == Result(True)
    assert heard[0].startswith("GET /a?b=c HTTP/1.1\r\n")
    assert "host: example.com\r\n" in heard[0]
    assert "X-Token: s3cret\r\n" in heard[0]
    assert heard[0].lower().count("host:") == 1


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-OpenSSH_9.6 and more\r\n", b"HTTP/1.1 two hundred\r\n\r\n"])
def test_what_is_no_http_is_no_answer(answer: bytes) -> None:
    result = asked(answer)
    assert result.ok is False
    assert result.message.startswith("no HTTP answer from :PORT/: ")


@pytest.mark.parametrize("beginning", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"])
def test_all_of_it_has_one_deadline(beginning: bytes) -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(beginning)
        await reader.read()  # until the other side hangs up

    assert asked(hang, 0.1) == Result(False, "no answer from :PORT/ within 0.1 s")


def test_an_answer_without_end_is_not_read_to_its_end() -> None:
    sent = 0

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while not reader.at_eof() and not writer.is_closing():
            writer.write(b"x" * 4096)
            sent += 4096
            await writer.drain()

    assert asked(pour) == Result(True)
    assert sent < 1000 * MOST_BYTES


def test_a_port_that_takes_connections_is_enough_for_tcp() -> None:
    async def run() -> tuple[Result, Result, int]:
        async with serving(b"") as port:
            good = await ask("127.0.0.1", TcpCheck(port=port), 5)
        return good, await ask("127.0.0.1", TcpCheck(port=port), 5), port

    good, refused, port = asyncio.run(run())
    assert good == Result(True)
    assert refused == Result(False, f"cannot connect to :{port}: connection refused")


@pytest.mark.skipif(os.geteuid() != 0, reason="making a network of its own needs root")
def test_a_connection_that_has_reached_itself_is_no_answer() -> None:
    """Where nobody listens the kernel may give a connection the very port that it goes to as its own; here it has no other to give."""
    there = subprocess.run(["unshare", "--net", sys.executable, "-c", _ALONE], capture_output=True, text=True, timeout=60, check=False)
    refused = [{Result(False, f"cannot connect to {where}: connection refused")} for where in (":40000", ":40000/")]
    assert there.stdout.splitlines() == [str(results) for results in refused], there.stderr


def test_an_instance_without_an_address_is_told_so() -> None:
    result = asyncio.run(ask("", TcpCheck(port=80), 1))
    assert result.ok is False
    assert "no network address of its own; use an exec probe" in result.message


def test_https_is_asked_without_a_look_at_the_certificate() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("another.example.com").configure_cert(context)
    assert asked(reply("200 OK"), tls=context, scheme="https") == Result(True)

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(reply("400 Bad Request"))

    refused = asked(plain, scheme="https")
    assert refused.ok is False
    assert refused.message.startswith("cannot speak TLS with :PORT/: ")


def test_what_the_agent_itself_has_run_out_of_says_nothing_about_the_app() -> None:
    async def run() -> Result:
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, before[1]))
        try:
            return await ask("127.0.0.1", TcpCheck(port=80), 1)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)

    assert asyncio.run(run()) == Result(None, "cannot connect to :80: too many open files")
