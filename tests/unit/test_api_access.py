"""Who may change something."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from boreas_agent.api.access import peers
from boreas_agent.settings import TRUSTED_BY_DEFAULT
from tests.unit.api_harness import SEED, Api, run

CHANGES = [
    ("POST", "/v1/apply"),
    ("DELETE", "/v1/apps/my-app"),
    ("POST", "/v1/apps/my-app/restart"),
    ("POST", "/v1/apps/my-app/hold"),
    ("POST", "/v1/apps/my-app/release"),
]
READS = ["/v1/status", "/v1/status/my-app", "/v1/health", "/v1/ready", "/v1/apps/my-app/revisions"]


@pytest.mark.parametrize(("method", "path"), CHANGES)
def test_a_change_that_is_not_declared_as_json_is_415(method: str, path: str) -> None:
    async def test(api: Api) -> None:
        await api.apply(SEED)
        before = api.everything()
        for content_type in ("", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/json-patch+json"):
            answer = await api.send(method, path, SEED | {"version": "v2"}, {"Content-Type": content_type})
            assert answer.status == 415, content_type
            assert answer.headers["Content-Type"] == "application/problem+json"
        assert api.everything() == before

    run(test)


def test_json_is_utf_8_whatever_the_header_says() -> None:
    async def test(api: Api) -> None:
        for content_type, status in (
            ("application/json; charset=utf-8", 200),
            ('application/json; charset="UTF-8"', 200),
            ("Application/JSON", 200),
            ("application/json; charset=latin-1", 415),
            ("application/json; charset=utf-16", 415),
            ("text/plain; application/json", 415),
            ("application/json, text/plain", 415),
            (";", 415),
        ):
            assert (await api.send("POST", "/v1/apply", SEED, {"Content-Type": content_type})).status == status, content_type

    run(test)


def test_a_compressed_body_is_415() -> None:
    async def test(api: Api) -> None:
        assert (await api.send("POST", "/v1/apply", b"\x1f\x8b", {"Content-Encoding": "gzip"})).status == 415

    run(test)


@pytest.mark.parametrize(("method", "path"), CHANGES)
def test_a_change_from_a_foreign_web_page_is_403(method: str, path: str) -> None:
    async def test(api: Api) -> None:
        await api.apply(SEED)
        before = api.everything()
        for origin in (
            "http://evil.example",
            "null",
            "",
            f"https://127.0.0.1:{api.port}",
            "http://127.0.0.1",
            f"{api.url}.evil.example",
            f"{api.url}/",
        ):
            own = f"Host: 127.0.0.1:{api.port}\r\nConnection: close\r\nContent-Type: application/json"
            raw = f"{method} {path} HTTP/1.1\r\n{own}\r\nOrigin: {origin}\r\n\r\n"
            assert (await api.raw(raw.encode())).startswith(b"HTTP/1.1 403"), origin
        assert api.everything() == before
        assert api.woken == ["my-app"]

    run(test)


def test_a_change_from_the_agents_own_page_is_accepted() -> None:
    async def test(api: Api) -> None:
        assert (await api.send("POST", "/v1/apply", SEED, {"Origin": api.url})).status == 200
        assert (await api.send("POST", "/v1/apply", SEED, {"Origin": api.url.upper()})).status == 200

    run(test)


def test_two_origins_must_both_be_the_agents_own() -> None:
    async def test(api: Api) -> None:
        origins = f"Origin: {api.url}\r\nOrigin: http://evil.example\r\n"
        head = (
            f"POST /v1/apply HTTP/1.1\r\nHost: 127.0.0.1:{api.port}\r\nConnection: close\r\n{origins}Content-Type: application/json\r\n\r\n"
        )
        assert (await api.raw(head.encode())).split()[1] in (b"403", b"400")

    run(test)


@pytest.mark.parametrize(("method", "path"), CHANGES)
def test_a_change_from_an_untrusted_network_is_403_with_the_way_out(method: str, path: str) -> None:
    async def test(api: Api) -> None:
        headers = {"X-Forwarded-For": "10.1.2.3", "Forwarded": "for=10.1.2.3", "X-Real-IP": "10.1.2.3"}
        answer = await api.send(method, path, SEED, headers)
        assert answer.status == 403
        assert "127.0.0.1" in answer.json["message"]
        assert "server.trusted_networks" in answer.json["message"]
        assert (api.everything(), api.woken) == ({}, [])

    run(test, trusted=("10.0.0.0/8",))


def test_reading_is_allowed_from_anywhere_with_any_origin() -> None:
    async def test(api: Api) -> None:
        for path in READS:
            assert (await api.send("GET", path, headers={"Content-Type": "", "Origin": "http://evil.example"})).status in (200, 404)

    run(test, trusted=())


@pytest.mark.parametrize(
    ("remote", "trusted", "shown"),
    [
        ("127.0.0.1", True, "127.0.0.1"),
        ("::1", True, "::1"),
        ("::ffff:127.0.0.1", True, "127.0.0.1"),
        ("::ffff:10.9.8.7", True, "10.9.8.7"),
        ("::ffff:8.8.8.8", False, "8.8.8.8"),
        ("172.31.255.255", True, "172.31.255.255"),
        ("172.32.0.0", False, "172.32.0.0"),
        ("192.168.1.1", True, "192.168.1.1"),
        ("169.254.3.4", True, "169.254.3.4"),
        ("fe80::1%eth0", True, "fe80::1%eth0"),
        ("fd00::1", True, "fd00::1"),
        ("2001:db8::1", False, "2001:db8::1"),
        ("0.0.0.0", False, "0.0.0.0"),
        ("::", False, "::"),
        ("nonsense", False, "nonsense"),
        (None, True, ""),
    ],
)
def test_loopback_private_and_link_local_peers_are_trusted_by_default(remote: str | None, trusted: bool, shown: str) -> None:
    peer = peers(ip_network(network) for network in TRUSTED_BY_DEFAULT)(remote)
    assert (peer.trusted, peer.address) == (trusted, shown)


def test_ipv4_peers_of_a_dual_stack_socket_do_not_slip_through_an_ipv6_network() -> None:
    assert not peers([ip_network("::/0")])("::ffff:10.0.0.1").trusted
    assert peers([ip_network("0.0.0.0/0")])("::ffff:10.0.0.1").trusted
