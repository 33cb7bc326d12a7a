"""Commands over TLS: the real command against the real listener, and a sentence for everything that can go wrong."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from boreas_agent.api import Security
from boreas_agent.settings import Server
from tests.certificates import Authority, Pair, token_file
from tests.unit.api_harness import Api, run
from tests.unit.test_cli_agent import CLOCK, Done, boreas

APPLY = "apply-77d0e35a1bc94f26"
READ = "read-4a1c9e7be02f41d8"


@pytest.fixture(autouse=True)
def unconfigured(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TOKEN", "CACERT", "CERT", "KEY"):
        monkeypatch.delenv(f"BOREAS_{name}", raising=False)


@pytest.fixture
def ours(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def me(tmp_path: Path) -> Pair:
    return Authority(tmp_path, "clients").leaf("me", "ops@example.com")


def against(test: Callable[[Api], Awaitable[None]], pair: Pair, **more: str) -> None:
    run(test, security=Security.open(Server(tls_cert=str(pair.cert), tls_key=str(pair.key), **more)))


def failed(done: Done, sentence: str) -> None:
    assert done.code == 1
    assert done.err.startswith("boreas-agent: ")
    assert sentence in done.err
    assert done.err.count("\n") == 1


def test_a_command_trusts_the_ca_it_is_given_and_no_other(ours: Authority, tmp_path: Path) -> None:
    other = Authority(tmp_path, "other").file

    async def test(api: Api) -> None:
        assert (await boreas(api, "status", "--cacert", str(ours.file))).code == 0
        assert (await boreas(api, "--cacert", str(ours.file), "status")).code == 0
        for options in ([], ["--cacert", str(other)]):
            failed(await boreas(api, "status", *options), "its certificate is not trusted (")
            failed(await boreas(api, "status", *options), "name the CA that signed it with --cacert or BOREAS_CACERT")

    against(test, ours.leaf("server"))


def test_a_certificate_for_another_host_or_another_time_is_told_apart(ours: Authority) -> None:
    async def test(api: Api) -> None:
        done = await boreas(api, "status", "--cacert", str(ours.file))
        failed(
            done, f"cannot talk to the agent at {api.url}: its certificate is for other names than '127.0.0.1'; use a name that is in it"
        )

    against(test, ours.leaf("server", "agent.example.com"))

    async def expired(api: Api) -> None:
        failed(await boreas(api, "status", "--cacert", str(ours.file)), "its certificate is not valid now (certificate has expired)")

    against(expired, ours.leaf("server", expired=True))


def test_client_certificates_and_tokens_are_shown_and_asked_for_where_they_are_missing(
    ours: Authority, me: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = token_file(tmp_path / "tokens", f"ci:apply:{APPLY}", f"grafana:read:{READ}")
    stranger = ours.leaf("stranger", "ops@example.com")
    monkeypatch.setenv("BOREAS_CACERT", str(ours.file))
    shown = ["--cert", str(me.cert), "--key", str(me.key)]

    async def test(api: Api) -> None:
        failed(await boreas(api, "status", "--token", APPLY), "a client certificate is needed")
        failed(await boreas(api, "status", *shown), "a token is needed")
        failed(await boreas(api, "status", *shown, "--token", APPLY[:-1]), "the token is not known to this agent")
        failed(await boreas(api, "hold", "clock", *shown, "--token", READ), "the token grafana may only read")
        done = await boreas(api, "status", "--cert", str(stranger.cert), "--key", str(stranger.key), "--token", APPLY)
        failed(done, "it does not accept this client certificate (--cert): no CA that it trusts has signed it")
        assert (await boreas(api, "status", *shown, "--token", READ)).code == 0
        monkeypatch.setenv("BOREAS_CERT", str(me.cert))
        monkeypatch.setenv("BOREAS_KEY", str(me.key))
        monkeypatch.setenv("BOREAS_TOKEN", APPLY)
        assert (await boreas(api, "apply", "--no-wait", "-f", "-", stdin=json.dumps(CLOCK))).code == 0
        head = api.store.head("clock")
        assert head is not None
        assert head.revision.submitted_by == "api 127.0.0.1 (certificate ops@example.com, token ci)"

    against(test, ours.leaf("server"), tls_client_ca=str(tmp_path / "clients.pem"), token_file=str(tokens))


def test_a_certificate_and_its_key_may_be_in_one_file(ours: Authority, me: Pair, tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(me.key.read_bytes() + me.cert.read_bytes())

    async def test(api: Api) -> None:
        assert (await boreas(api, "status", "--cacert", str(ours.file), "--cert", str(both))).code == 0

    against(test, ours.leaf("server"), tls_client_ca=str(tmp_path / "clients.pem"))


def test_files_that_cannot_be_used_are_named(ours: Authority, me: Pair, tmp_path: Path) -> None:
    missing, text = str(tmp_path / "missing"), token_file(tmp_path / "text", "hello")
    server = ours.leaf("server")

    async def test(api: Api) -> None:
        for options, sentence in (
            (["--cacert", missing], f"cannot read {missing} (--cacert or BOREAS_CACERT): No such file or directory"),
            (["--cacert", str(text)], f"cannot use {text} (--cacert or BOREAS_CACERT): it holds no certificate in PEM form"),
            (["--cert", missing], f"cannot read {missing} (--cert or BOREAS_CERT): No such file or directory"),
            (["--key", str(me.key)], "cannot use --key (BOREAS_KEY) without --cert (BOREAS_CERT)"),
            (
                ["--cert", str(me.cert), "--key", str(server.key)],
                f"cannot use {me.cert} with the key {server.key}: they do not belong together",
            ),
            (["--cert", str(me.cert)], f"cannot use {me.cert} as certificate and key (--key names the key's file)"),
        ):
            failed(await boreas(api, "status", *options), sentence)

    against(test, server)


def test_http_and_https_mistaken_for_each_other_are_a_sentence(ours: Authority) -> None:
    async def test(api: Api) -> None:
        failed(await boreas(api, "status", "--url", api.url.replace("https", "http")), "this port speaks TLS: its URL begins with https://")

    against(test, ours.leaf("server"))

    async def plain(api: Api) -> None:
        failed(
            await boreas(api, "status", "--url", api.url.replace("http", "https")),
            "it does not speak TLS there; its URL may begin with http://",
        )

    run(plain)


def test_help_says_where_a_token_is_better_kept() -> None:
    async def test(api: Api) -> None:
        shown = " ".join((await boreas(api, "status", "--help")).out.split())
        assert "Better in the variable BOREAS_TOKEN: options are shown to everybody by ps." in shown
        assert (await boreas(api, "--cacert", "x")).code == 2

    run(test)
