"""The listener with TLS: real handshakes, renewed certificates, and clients that show their own."""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
import warnings
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from boreas_agent.api import Security, handshake, security
from boreas_agent.settings import Server
from tests.certificates import Authority, Pair, replace, token_file
from tests.unit.api_harness import SEED, Api, run
from tests.waiting import eventually_async

APPLY = "apply-77d0e35a1bc94f26"
READ = "read-4a1c9e7be02f41d8"


@pytest.fixture
def ours(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def clients(tmp_path: Path) -> Authority:
    """The CA of client certificates: another than the server's."""
    return Authority(tmp_path, "clients")


def served(pair: Pair, **more: Any) -> Security:
    return Security.open(Server(tls_cert=str(pair.cert), tls_key=str(pair.key), **more))


def secured(test: Callable[[Api], Awaitable[None]], secure: Security) -> None:
    run(test, security=secure)


Answer = tuple[int, Any]


async def ask(
    api: Api, context: ssl.SSLContext, method: str = "GET", path: str = "/v1/status", body: Any = None, *, token: str = ""
) -> Answer:
    """One request on a connection of its own."""

    def blocking() -> Answer:
        with closing(http.client.HTTPSConnection("127.0.0.1", api.port, timeout=20, context=context)) as connection:
            headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    return await asyncio.to_thread(blocking)


async def shown_by(api: Api, context: ssl.SSLContext) -> bytes:
    """The certificate with which the port answers."""
    _, writer = await asyncio.open_connection("127.0.0.1", api.port, ssl=context)
    try:
        certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        assert isinstance(certificate, bytes)
        return certificate
    finally:
        writer.close()
        await writer.wait_closed()


def der(pair: Pair) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pair.cert.read_text())


def speaking(ours: Authority, version: ssl.TLSVersion) -> ssl.SSLContext:
    """A client that speaks one version only, and would take any cipher."""
    context = ours.trusting()
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = version
    return context


# --- the listener --------------------------------------------------------------------------------


def test_requests_are_answered_over_tls_1_2_and_1_3_and_older_versions_are_told_so(ours: Authority) -> None:
    async def test(api: Api) -> None:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            assert (await ask(api, speaking(ours, version)))[0] == 200
            assert (await ask(api, speaking(ours, version), "POST", "/v1/apply", SEED))[0] == 200
        for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
            with pytest.raises(ssl.SSLError, match=r"(?i)alert protocol version"):
                await ask(api, speaking(ours, version))

    secured(test, served(ours.leaf("server")))


def test_a_page_of_the_agent_itself_is_its_https_address(ours: Authority) -> None:
    async def test(api: Api) -> None:
        context = ours.trusting()
        for origin, status in ((api.url, 200), (api.url.replace("https", "http"), 403)):
            headers = {"Content-Type": "application/json", "Origin": origin}
            async with api.session.post(f"{api.url}/v1/apply", json=SEED, headers=headers, ssl=context) as answer:
                assert answer.status == status

    secured(test, served(ours.leaf("server")))


def test_what_is_no_tls_is_turned_away_without_a_word_in_the_log(ours: Authority, caplog: pytest.LogCaptureFixture) -> None:
    async def test(api: Api) -> None:
        for nonsense in (b"\0" * 100, b"SSH-2.0-x\r\n", b"\x16\x03\x01\x00\x02\x01\x00", b""):
            reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
            writer.write(nonsense)
            writer.write_eof()
            assert len(await asyncio.wait_for(reader.read(), 10)) < 20
            writer.close()
        assert (await ask(api, ours.trusting()))[0] == 200

    secured(test, served(ours.leaf("server")))
    assert [record for record in caplog.records if record.name != "boreas_agent.store.opening"] == []


def test_a_request_in_clear_text_is_told_that_the_port_speaks_tls(ours: Authority) -> None:
    async def test(api: Api) -> None:
        for request in (
            b"GET /v1/status HTTP/1.1\r\nHost: a\r\n\r\n",
            b"POST /v1/apply HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}",
        ):
            head, _, body = (await api.raw(request)).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 400 ")
            assert b"content-type: application/problem+json" in head.lower()
            assert json.loads(body)["message"] == "this port speaks TLS: its URL begins with https://"

    secured(test, served(ours.leaf("server")))


def test_many_requests_on_one_connection_and_large_bodies_get_through(ours: Authority) -> None:
    async def test(api: Api) -> None:
        script = {"app": "long", "version": "v1", "pkg": {"type": "script", "script": "#" * 600_000}}
        context = ours.trusting()
        for _ in range(3):
            async with api.session.post(f"{api.url}/v1/apply", json=script, ssl=context) as answer:
                assert answer.status == 200
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port, ssl=context)
        writer.write(
            b"GET /v1/health HTTP/1.1\r\nHost: a\r\n\r\n" * 50 + b"GET /v1/health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        )
        assert (await asyncio.wait_for(reader.read(), 20)).count(b"HTTP/1.1 200") == 51
        writer.close()

    secured(test, served(ours.leaf("server")))


def test_a_handshake_that_does_not_go_on_is_given_up(ours: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake, "HANDSHAKE_SECONDS", 0.3)

    async def test(api: Api) -> None:
        for beginning in (b"", b"\x16\x03\x01\x02\x00\x01\x00"):
            reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
            writer.write(beginning)
            assert await asyncio.wait_for(reader.read(), 10) == b""
            writer.close()

    secured(test, served(ours.leaf("server")))


# --- renewal -------------------------------------------------------------------------------------


def test_a_renewed_pair_is_served_without_a_restart_and_a_mismatched_one_is_not(
    ours: Authority, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(security, "LOOK_SECONDS", 0.02)
    pair, renewed, third = ours.leaf("server"), ours.leaf("renewed"), ours.leaf("third")
    first, second, last = der(pair), der(renewed), der(third)

    async def test(api: Api) -> None:
        context = ours.trusting()
        old_reader, old_writer = await asyncio.open_connection("127.0.0.1", api.port, ssl=context)

        async def serves(certificate: bytes) -> bool:
            return await shown_by(api, context) == certificate

        assert await serves(first)
        pair.take(renewed)
        await eventually_async(lambda: serves(second))
        replace(pair.cert, third.cert.read_bytes())

        async def warned() -> bool:
            return any("belongs to another one" in vars(record).get("reason", "") for record in caplog.records)

        await eventually_async(warned)
        assert await serves(second)
        replace(pair.key, third.key.read_bytes())
        await eventually_async(lambda: serves(last))
        old_writer.write(b"GET /v1/health HTTP/1.1\r\nHost: a\r\n\r\n")  # a connection from before all of this is not disturbed
        assert (await asyncio.wait_for(old_reader.readline(), 10)).startswith(b"HTTP/1.1 200")
        old_writer.close()

    secured(test, served(pair))


def test_a_renewed_client_ca_holds_for_new_connections_and_ends_the_old_ones(ours: Authority, clients: Authority, tmp_path: Path) -> None:
    others = Authority(tmp_path, "others")
    ca = tmp_path / "trusted.pem"
    ca.write_bytes(clients.file.read_bytes())
    before, after = ours.trusting(clients.leaf("before")), ours.trusting(others.leaf("after"))
    secure = served(ours.leaf("server"), tls_client_ca=str(ca))

    async def test(api: Api) -> None:
        assert (await ask(api, before))[0] == 200
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port, ssl=before)
        writer.write(b"GET /v1/status HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await asyncio.wait_for(reader.readline(), 10)).startswith(b"HTTP/1.1 200")
        replace(ca, others.file.read_bytes())
        await secure.reload()
        assert (await ask(api, after))[0] == 200
        with pytest.raises((ssl.SSLError, ConnectionError), match=r"(?i)unknown ca|reset"):
            await ask(api, before)
        assert b"HTTP/1.1" not in await asyncio.wait_for(reader.read(), 10)  # it is closed, although it was quiet
        writer.close()

    secured(test, secure)


# --- client certificates -------------------------------------------------------------------------


def test_with_a_client_ca_every_call_but_health_needs_a_certificate(ours: Authority, clients: Authority) -> None:
    async def test(api: Api) -> None:
        nobody, somebody = ours.trusting(), ours.trusting(clients.leaf("me", "ops@example.com"))
        for method, path in (("GET", "/v1/status"), ("GET", "/v1/ready"), ("POST", "/v1/apply"), ("GET", "/nowhere")):
            status, answer = await ask(api, nobody, method, path, SEED if method == "POST" else None)
            assert status == 401
            assert answer["message"].startswith("a client certificate is needed")
        assert (await ask(api, nobody, path="/v1/health"))[0] == 200
        assert api.everything() == {}
        assert (await ask(api, somebody, "POST", "/v1/apply", SEED))[0] == 200
        head = api.store.head("my-app")
        assert head is not None
        assert head.revision.submitted_by == "api 127.0.0.1 (certificate ops@example.com)"

    secured(test, served(ours.leaf("server"), tls_client_ca=str(clients.file)))


def test_a_certificate_of_another_ca_or_one_that_has_expired_ends_the_handshake_with_the_reason(
    ours: Authority, clients: Authority
) -> None:
    async def test(api: Api) -> None:
        for shown, why in (
            (ours.leaf("foreign", "ops@example.com"), "unknown ca"),
            (clients.leaf("expired", "ops@example.com", expired=True), "certificate expired"),
        ):
            with pytest.raises((ssl.SSLError, ConnectionError), match=f"(?i){why}|reset"):
                await ask(api, ours.trusting(shown))
            two = ours.trusting(shown)
            two.maximum_version = ssl.TLSVersion.TLSv1_2  # here the alert always comes before anything else
            with pytest.raises(ssl.SSLError, match=f"(?i){why}"):
                await ask(api, two)

    secured(test, served(ours.leaf("server"), tls_client_ca=str(clients.file)))


def test_only_certificates_with_an_allowed_name_of_the_same_kind_are_let_in(ours: Authority, clients: Authority) -> None:
    allowed = ("spiffe://boreas/controller", "ci.example.com", "10.1.2.3", "ops@example.com")
    uri, dns = x509.UniformResourceIdentifier, x509.DNSName
    good = {
        "spiffe://boreas/controller": clients.leaf_of("uri", [dns("x.example.com"), uri("spiffe://boreas/controller")]),
        "ci.example.com": clients.leaf("dns", "other.example.com", "ci.example.com"),
        "10.1.2.3": clients.leaf("address", "10.1.2.3"),
        "ops@example.com": clients.leaf("mail", "ops@example.com"),
    }
    bad = {
        "spiffe://boreas/controller/x": clients.leaf_of("longer", [uri("spiffe://boreas/controller/x")]),
        "sub.ci.example.com": clients.leaf("sub", "sub.ci.example.com"),
        "*.example.com": clients.leaf("wild", "*.example.com"),
        "10.1.2.3": clients.leaf_of("looks", [dns("10.1.2.3")]),
        "nobody but ci.example.com": clients.leaf_of("common", [], common_name="ci.example.com"),
    }

    async def test(api: Api) -> None:
        for number, (name, pair) in enumerate(good.items(), 1):
            body = SEED | {"version": f"v{number}"}
            assert (await ask(api, ours.trusting(pair), "POST", "/v1/apply", body))[0] == 200, name
            head = api.store.head("my-app")
            assert head is not None
            assert head.revision.submitted_by == f"api 127.0.0.1 (certificate {name})"
        before = api.everything()
        for name, pair in bad.items():
            for method, path, body in (("GET", "/v1/status", None), ("POST", "/v1/apply", SEED)):
                status, answer = await ask(api, ours.trusting(pair), method, path, body)
                assert status == 403, name
                assert answer["message"].startswith(f"the certificate is for {name}, which is not allowed here; to allow it")
        assert api.everything() == before

    secured(test, served(ours.leaf("server"), tls_client_ca=str(clients.file), tls_client_sans=allowed))


def test_a_certificate_without_any_name_is_called_by_its_common_name(ours: Authority, clients: Authority) -> None:
    plain, strange = clients.leaf_of("plain", [], "deployer"), clients.leaf_of("strange", [], "a\nb")

    async def test(api: Api) -> None:
        for number, (pair, name) in enumerate(((plain, "deployer"), (strange, "a\ufffdb")), 1):
            assert (await ask(api, ours.trusting(pair), "POST", "/v1/apply", SEED | {"version": f"v{number}"}))[0] == 200
            head = api.store.head("my-app")
            assert head is not None
            assert head.revision.submitted_by == f"api 127.0.0.1 (certificate {name})"

    secured(test, served(ours.leaf("server"), tls_client_ca=str(clients.file)))


def test_with_tokens_and_a_client_ca_both_are_needed(ours: Authority, clients: Authority, tmp_path: Path) -> None:
    tokens = token_file(tmp_path / "tokens", f"ci:apply:{APPLY}", f"grafana:read:{READ}")
    secure = served(ours.leaf("server"), tls_client_ca=str(clients.file), token_file=str(tokens))

    async def test(api: Api) -> None:
        without, with_one = ours.trusting(), ours.trusting(clients.leaf("me", "ops@example.com"))
        assert (await ask(api, without, token=APPLY))[0] == 401
        assert (await ask(api, with_one))[0] == 401
        assert (await ask(api, with_one, token="wrong-wrong-wrong-wrong"))[0] == 401
        assert (await ask(api, with_one, token=READ))[0] == 200
        assert (await ask(api, with_one, "POST", "/v1/apply", SEED, token=READ))[0] == 403
        assert (await ask(api, with_one, "POST", "/v1/apply", SEED, token=APPLY))[0] == 200
        head = api.store.head("my-app")
        assert head is not None
        assert head.revision.submitted_by == "api 127.0.0.1 (certificate ops@example.com, token ci)"

    secured(test, secure)
