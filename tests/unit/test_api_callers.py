"""Who calls: tokens and their scopes, over the real API and a real store."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from boreas_agent.api import Security
from boreas_agent.settings import Server
from tests.certificates import token_file
from tests.unit.api_harness import LOOPBACK, RUNNING, SEED, Api, Reply, run, seed
from tests.unit.test_api_access import CHANGES, READS

READ = "read-4a1c9e7be02f41d8"
APPLY = "apply-77d0e35a1bc94f26"
OPEN = "/v1/health"
CLOSED = [path for path in READS if path != OPEN]


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    return token_file(tmp_path / "tokens", f"grafana:read:{READ}", f"ci:apply:{APPLY}")


def secured(test: Callable[[Api], Awaitable[None]], tokens: Path, trusted: tuple[str, ...] = LOOPBACK) -> None:
    run(test, trusted, security=Security.open(Server(token_file=str(tokens))))


def assert_unknown(answer: Reply, why: str) -> None:
    assert (answer.status, answer.headers["Content-Type"]) == (401, "application/problem+json")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert why in answer.json["message"]
    assert answer.json["success"] is False


@pytest.mark.parametrize(("method", "path"), [*CHANGES, *(("GET", path) for path in CLOSED), ("GET", "/nowhere"), ("POST", OPEN)])
def test_every_call_but_health_needs_a_token(tokens: Path, method: str, path: str) -> None:
    async def test(api: Api) -> None:
        for headers, why in (
            ({}, "a token is needed: send the header Authorization: Bearer TOKEN"),
            (bearer(""), "a token is needed"),
            ({"Authorization": f"Basic {APPLY}"}, "a token is needed"),
            ({"Authorization": APPLY}, "a token is needed"),
            (bearer(APPLY[:-1]), "the token is not known to this agent"),
            (bearer(f"ci:apply:{APPLY}"), "the token is not known to this agent"),
            (bearer(f"{APPLY}, {APPLY}"), "the token is not known to this agent"),
        ):
            answer = await api.send(method, path, SEED if method == "POST" else None, headers)
            assert_unknown(answer, why)
            assert APPLY[:-1] not in answer.text
        assert (api.everything(), api.woken) == ({}, [])

    secured(test, tokens)


def test_health_answers_without_one(tokens: Path) -> None:
    async def test(api: Api) -> None:
        for method in ("GET", "HEAD"):
            for headers in ({}, bearer("wrong-wrong-wrong-wrong")):
                assert (await api.send(method, OPEN, headers=headers)).status == 200

    secured(test, tokens)


def test_scope_read_reads_and_changes_nothing(tokens: Path) -> None:
    async def test(api: Api) -> None:
        assert (await api.send("POST", "/v1/apply", SEED, bearer(APPLY))).status == 200
        before = api.everything()
        for path in CLOSED:
            assert (await api.send("GET", path, headers=bearer(READ))).status == 200, path
        for method, path in CHANGES:
            answer = await api.send(method, path, seed(version="v2"), bearer(READ))
            assert answer.status == 403
            assert answer.json["message"] == "the token grafana may only read; a change needs one of scope apply"
        assert api.everything() == before

    secured(test, tokens)


def test_scope_apply_does_everything_and_the_word_bearer_may_be_written_in_any_way(tokens: Path) -> None:
    async def test(api: Api) -> None:
        for scheme in ("Bearer", "bearer", "BEARER", "Bearer "):
            headers = {"Authorization": f"{scheme} {APPLY}"}
            assert (await api.send("POST", "/v1/apply", SEED, headers)).status == 200
            assert (await api.send("GET", "/v1/status", headers=headers)).status == 200

    secured(test, tokens)


def test_two_authorization_headers_are_none(tokens: Path) -> None:
    async def test(api: Api) -> None:
        for first, second in ((READ, APPLY), (APPLY, "wrong-wrong-wrong-wrong")):
            both = f"Authorization: Bearer {first}\r\nAuthorization: Bearer {second}"
            head = f"GET /v1/status HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{both}\r\n\r\n"
            assert (await api.raw(head.encode())).split()[1] in (b"400", b"401")

    secured(test, tokens)


def test_a_token_in_bytes_that_are_no_text_is_merely_unknown(tokens: Path) -> None:
    async def test(api: Api) -> None:
        head = b"GET /v1/status HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: Bearer \xff\xfe\x80abc\r\n\r\n"
        assert (await api.raw(head)).startswith(b"HTTP/1.1 401")

    secured(test, tokens)


def test_a_token_does_not_widen_the_trusted_networks_nor_what_web_pages_may_do(tokens: Path) -> None:
    async def test(api: Api) -> None:
        answer = await api.send("POST", "/v1/apply", SEED, bearer(APPLY))
        assert answer.status == 403
        assert "server.trusted_networks" in answer.json["message"]

    secured(test, tokens, trusted=("10.0.0.0/8",))

    async def page(api: Api) -> None:
        assert (await api.send("POST", "/v1/apply", SEED, bearer(APPLY) | {"Origin": "http://evil.example"})).status == 403
        assert (await api.send("POST", "/v1/apply", SEED, bearer(APPLY) | {"Content-Type": "text/plain"})).status == 415

    secured(page, tokens)


def test_the_history_says_whose_token_it_was_and_never_which(tokens: Path) -> None:
    async def test(api: Api) -> None:
        by = "api 127.0.0.1 (token ci)"
        await api.send("POST", "/v1/apply", SEED, bearer(APPLY))
        await api.is_now("my-app", RUNNING)
        await api.send("POST", "/v1/apps/my-app/hold", {"reason": "look"}, bearer(APPLY))
        answer = await api.send("GET", "/v1/apps/my-app/revisions", headers=bearer(READ))
        assert [row["submitted_by"] for row in answer.json["revisions"]] == [by]
        said = [event["message"] for event in await api.store.events("my-app", 0, 10)]
        assert said[0] == f"recorded by {by}: version v1.0.0, revision 1"
        assert said[1].startswith(f"my-app is held by {by}")
        status = (await api.send("GET", "/v1/status", headers=bearer(READ))).text
        assert by in status
        files = b"".join(file.read_bytes() for file in api.database.parent.iterdir())
        assert b"token ci" in files
        for secret in (APPLY, READ):
            assert secret not in status
            assert secret.encode() not in files
            assert hashlib.sha256(secret.encode()).digest() not in files

    secured(test, tokens)


def test_tokens_are_rotated_and_revoked_without_a_restart(tokens: Path) -> None:
    security = Security.open(Server(token_file=str(tokens)))

    async def statuses(api: Api, *secrets: str) -> list[int]:
        return [(await api.send("GET", "/v1/status", headers=bearer(secret))).status for secret in secrets]

    async def test(api: Api) -> None:
        new = "apply-0000000000000001"
        assert await statuses(api, APPLY, new) == [200, 401]
        token_file(tokens, f"ci:apply:{APPLY}", f"ci:apply:{new}")
        await security.reload()
        assert await statuses(api, APPLY, new) == [200, 200]
        token_file(tokens, f"ci:apply:{new}")
        await security.reload()
        assert await statuses(api, APPLY, new, READ) == [401, 200, 401]

    run(test, security=security)


def test_a_token_file_that_became_useless_leaves_the_old_tokens_and_says_so(tokens: Path, caplog: pytest.LogCaptureFixture) -> None:
    security = Security.open(Server(token_file=str(tokens)))

    async def test(api: Api) -> None:
        for spoil, why in (
            (lambda: tokens.chmod(0o644), "mode 0644"),
            (lambda: token_file(tokens, f"ci:{APPLY}"), "the scope in line 1"),
            (lambda: token_file(tokens), "there is no token in it"),
            (tokens.unlink, "No such file or directory"),
        ):
            caplog.clear()
            spoil()
            await security.reload()
            assert why in vars(caplog.records[0])["reason"]
            assert (await api.send("GET", "/v1/status", headers=bearer(APPLY))).status == 200
        assert APPLY not in caplog.text

    run(test, security=security)
