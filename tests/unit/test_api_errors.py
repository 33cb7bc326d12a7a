"""Bad input: a 4xx in one form, never a 5xx, and nothing is changed."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from boreas_agent.api import listen
from boreas_agent.errors import StartupError
from tests.unit.api_harness import SEED, Api, Reply, pkg, run, seed, serving

MIB = 1024 * 1024
LINES = "Host: a\r\nConnection: close\r\nContent-Type: application/json\r\n"


def assert_problem(answer: Reply, status: int) -> None:
    assert answer.status == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    body = answer.json
    assert body["success"] is False
    assert body["message"]
    assert ("errors" in body) == (status == 422)
    assert all(set(error) == {"field", "message"} for error in body.get("errors", []))
    assert "Traceback" not in answer.text


# Scenario 18: `version` of `../../etc`, app names with slashes, NULs, 10 MB bodies, deep JSON, wrong types, NaN, duplicate keys.
# A version is a git tag and may hold slashes; it never becomes a path, so `../../etc` is one more name, and control characters are not.
HOSTILE: list[tuple[str, Any, int]] = [
    ("version with a newline", seed(version="../../etc\n"), 422),
    ("version with NUL", seed(version="../../etc\0"), 422),
    ("version too long", seed(version="../" * 50), 422),
    ("app with slashes", seed(app="../../etc"), 422),
    ("app with a slash", seed(app="a/b"), 422),
    ("app is dots", seed(app=".."), 422),
    ("app with NUL", seed(app="a\0b"), 422),
    ("NUL in an argument", pkg(args=["a\0b"]), 422),
    ("NUL in a path", pkg(working_dir="/a\0b"), 422),
    ("NUL in a value", pkg(environment={"A": "\0"}), 422),
    ("NUL in a name", pkg(environment={"A\0": "x"}), 422),
    ("NUL in a key", pkg(**{"image\0": "x"}), 422),
    ("raw NUL", b'{"app": "a\0"}', 400),
    ("10 MB", b" " * 10 * MIB, 413),
    ("10 MB of JSON", json.dumps(pkg(environment={"A": "x" * 10 * MIB})).encode(), 413),
    ("one byte too many", json.dumps(SEED).encode().ljust(MIB + 1), 413),
    ("deep lists", b"[" * 500_000, 400),
    ("deep objects", b'{"a":' * 100_000, 400),
    ("deep in pkg", json.dumps(SEED).replace('["/app/my-app"]', "[" * 900 + "]" * 900).encode(), 400),
    ("wrong types", {"app": 1, "version": [], "pkg": {"type": "docker", "image": {}, "ports": {"a": 1}, "replicas": "1"}}, 422),
    ("pkg is a list", seed(pkg=[]), 422),
    ("no object", b"[]", 422),
    ("null", b"null", 422),
    ("NaN", b'{"app": "a", "version": "v", "pkg": {"type": "docker", "image": "a", "stop": {"grace_seconds": NaN}}}', 400),
    ("infinity", json.dumps(pkg(stop={"grace_seconds": 1})).replace("1}", "1e999}").encode(), 400),
    ("huge number", json.dumps(SEED).replace("8080", "9" * 5000).encode(), 400),
    ("duplicate app", b'{"app": "a", "app": "b", "version": "v", "pkg": {"type": "docker", "image": "a"}}', 400),
    ("duplicate inside", b'{"app": "a", "version": "v", "pkg": {"type": "docker", "image": "a", "image": "b"}}', 400),
    ("pkg and package", seed(package=SEED["pkg"]), 422),
    ("invalid UTF-8", b'{"app": "\xff"}', 400),
    ("half a surrogate pair", b'{"app": "a", "version": "v", "pkg": {"type": "docker", "image": "a", "args": ["\\ud800"]}}', 400),
    ("empty", b"", 400),
    ("cut off", json.dumps(SEED).encode()[:-1], 400),
    ("sixty thousand keys", json.dumps(dict.fromkeys(map(str, range(60_000)))).encode(), 400),
    ("many wrong items", pkg(args=[1] * 200_000), 422),
]


@pytest.mark.parametrize(("body", "status"), [case[1:] for case in HOSTILE], ids=[case[0] for case in HOSTILE])
def test_scenario_18_hostile_names_sizes_depths_types_and_duplicates_are_4xx_and_change_nothing(body: Any, status: int) -> None:
    async def test(api: Api) -> None:
        await api.apply(SEED)
        before = api.everything()
        assert_problem(await api.apply(body), status)
        assert api.everything() == before
        assert api.woken == ["my-app"]

    run(test)


def test_a_version_like_a_path_is_a_name_like_any_other() -> None:
    async def test(api: Api) -> None:
        assert (await api.apply(seed(version="../../etc"))).status == 200
        assert (await api.get("/v1/status/my-app")).json["version"] == "../../etc"

    run(test)


def test_a_body_of_exactly_one_mebibyte_is_accepted() -> None:
    async def test(api: Api) -> None:
        assert (await api.apply(json.dumps(SEED).encode().ljust(MIB))).status == 200

    run(test)


def test_a_body_without_a_length_is_cut_off_at_one_mebibyte() -> None:
    async def test(api: Api) -> None:
        async def endless() -> AsyncIterator[bytes]:
            for _ in range(40):
                yield b" " * 65536

        assert_problem(await api.apply(endless()), 413)
        assert api.everything() == {}

    run(test)


def test_at_most_50_faults_are_named_in_one_answer() -> None:
    async def test(api: Api) -> None:
        answer = await api.apply(seed(**dict.fromkeys(map(str, range(1000)))))
        assert_problem(answer, 422)
        assert len(answer.fields) == 50
        assert "999 more" in answer.json["message"]

    run(test)


# --- paths and methods -----------------------------------------------------------------------------


NO_APPS = ("nope", "a%2Fb", "..%2f..", "%00", "a%00b", "%ff%fe", "%C3%BC", "a%0Ab", "%2e%2e", "x" * 64, "x" * 4000, "a%20b", "%7Bapp%7D")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/status/{}"),
        ("GET", "/v1/apps/{}/revisions"),
        ("DELETE", "/v1/apps/{}"),
        ("POST", "/v1/apps/{}/restart"),
        ("POST", "/v1/apps/{}/hold"),
        ("POST", "/v1/apps/{}/release"),
    ],
)
def test_an_unknown_or_impossible_app_is_404_everywhere(method: str, path: str) -> None:
    async def test(api: Api) -> None:
        await api.apply(SEED)
        before = api.everything()
        for name in NO_APPS:
            answer = await api.raw(f"{method} {path.format(name)} HTTP/1.1\r\n{LINES}\r\n".encode())
            assert answer.startswith(b"HTTP/1.1 404"), (name, answer)
            assert b"application/problem+json" in answer
        assert api.everything() == before

    run(test)


def test_an_unknown_path_is_404() -> None:
    async def test(api: Api) -> None:
        for path in (
            "/",
            "/v1",
            "/v1/",
            "/v1/status/",
            "/v1/apply/",
            "/v2/status",
            "/openapi.yaml",
            "//v1/status",
            "/v1/status/a/b",
            "/%00",
        ):
            for method in ("GET", "POST"):
                assert_problem(await api.send(method, path), 404)

    run(test)


def test_a_known_path_with_another_method_is_405_and_names_the_right_ones() -> None:
    async def test(api: Api) -> None:
        for method, path, allow in (
            ("GET", "/v1/apply", "POST"),
            ("PUT", "/v1/apply", "POST"),
            ("OPTIONS", "/v1/apply", "POST"),
            ("POST", "/v1/status", "GET, HEAD"),
            ("DELETE", "/v1/status/my-app", "GET, HEAD"),
            ("PATCH", "/v1/apps/my-app", "DELETE"),
            ("GET", "/v1/apps/my-app/restart", "POST"),
            ("POST", "/v1/health", "GET, HEAD"),
        ):
            answer = await api.send(method, path, {})
            assert_problem(answer, 405)
            assert answer.headers["Allow"] == allow

    run(test)


def test_head_is_get_without_the_body() -> None:
    async def test(api: Api) -> None:
        for path, status in (("/v1/status", 200), ("/v1/health", 200), ("/v1/ready", 200), ("/v1/status/nope", 404)):
            answer = await api.send("HEAD", path, headers={"Content-Type": ""})
            assert (answer.status, answer.text) == (status, "")

    run(test)


def test_unknown_query_parameters_are_ignored_however_odd() -> None:
    async def test(api: Api) -> None:
        for query in ("?x=1", "?%zz=%ff", "?&&=&", "?" + "a" * 4000, "?wait"):
            assert (await api.get("/v1/status" + query)).status == 200

    run(test)


# --- what is not HTTP ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"GET\r\n\r\n", 400),
        (b"GET /v1/status HTTP/9.9\r\nHost: a\r\n\r\n", 400),
        (b"GET /v1/status HTTP/1.1\r\n\r\n", 400),
        (b"GET a b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET \xff HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET http://[::1/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /v1/status HTTP/1.1\r\nHost: a\r\nbad header\r\n\r\n", 400),
        (b"GET /v1/status HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", 400),
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 20_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n" * 1000 + b"\r\n", 400),
        (f"POST /v1/apply HTTP/1.1\r\n{LINES}Content-Length: -1\r\n\r\n{{}}".encode(), 400),
        (f"POST /v1/apply HTTP/1.1\r\n{LINES}Content-Length: {'9' * 40}\r\n\r\n{{}}".encode(), 400),
        (f"POST /v1/apply HTTP/1.1\r\n{LINES}Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{{}}".encode(), 400),
        (f"POST /v1/apply HTTP/1.1\r\n{LINES}Transfer-Encoding: chunked\r\n\r\nzz\r\n".encode(), 400),
        (f"POST /v1/apply HTTP/1.1\r\n{LINES}Transfer-Encoding: chunked\r\n\r\n2\r\n{{}}XX".encode(), 400),
        (f"POST /v1/apply HTTP/1.1\r\n{LINES}Expect: miracles\r\nContent-Length: 2\r\n\r\n{{}}".encode(), 417),
    ],
)
def test_what_is_not_http_is_answered_in_the_same_form_and_leaves_no_trace_in_the_log(
    request_: bytes, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(api: Api) -> None:
        with caplog.at_level(logging.INFO):
            answer = await api.raw(request_)
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.split()[1] == str(status).encode(), answer
        assert b"Content-Type: application/problem+json" in head
        assert json.loads(body)["success"] is False
        assert [
            record.getMessage() for record in caplog.records if record.name.startswith(("aiohttp", "boreas_agent.api", "asyncio"))
        ] == []
        assert (await api.get("/v1/health")).status == 200

    run(test)


def test_a_body_is_asked_for_only_where_it_would_be_read() -> None:
    async def test(api: Api) -> None:
        body = json.dumps(SEED).encode()
        answer = await api.raw(
            f"POST /v1/apply HTTP/1.1\r\n{LINES}Expect: 100-continue\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
        )
        assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK")
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
        writer.write(f"POST /v1/apply HTTP/1.1\r\n{LINES}Expect: 100-continue\r\nContent-Length: 99999999\r\n\r\n".encode())
        assert (await asyncio.wait_for(reader.readline(), 10)).split()[1] == b"413"
        writer.close()

    run(test)


def test_a_client_that_leaves_in_the_middle_changes_nothing_and_leaves_no_trace_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def test(api: Api) -> None:
        for sent in (b"GET /v1/sta", f"POST /v1/apply HTTP/1.1\r\n{LINES}Content-Length: 5000\r\n\r\n{{".encode()):
            _, writer = await asyncio.open_connection("127.0.0.1", api.port)
            writer.write(sent)
            await writer.drain()
            writer.transport.abort()
        assert (await api.get("/v1/health")).status == 200
        assert api.everything() == {}

    with caplog.at_level(logging.INFO):
        run(test)
    assert [record.getMessage() for record in caplog.records if record.name.startswith(("aiohttp", "boreas_agent.api", "asyncio"))] == []


def test_what_nobody_foresaw_is_a_500_without_a_traceback_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def test(api: Api) -> None:
        def broken() -> bool:
            raise RuntimeError("secret detail")

        async with serving(ready=broken) as other:
            answer = await other.get("/v1/ready")
        assert_problem(answer, 500)
        assert "secret" not in answer.text
        assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == ["secret detail"]
        assert api.everything() == {}

    run(test)


def test_a_port_that_is_taken_is_a_sentence_that_names_it() -> None:
    async def test(api: Api) -> None:
        with pytest.raises(StartupError, match=rf"cannot listen on 127\.0\.0\.1:{api.port}: another program has taken port {api.port}"):
            async with listen(web.Application(), "127.0.0.1", api.port):
                raise AssertionError("two servers listen on one port")

    run(test)


# --- fuzz ------------------------------------------------------------------------------------------

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats()
    | st.text(max_size=10)
    | st.sampled_from(["docker", "binary", "script", "/", "..", "\0", "a/b", "SIGTERM", "always", "x" * 2000]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.sampled_from(["host", "type", "policy"]), inner, max_size=3)
    ),
    max_leaves=6,
)
PATHS = st.sampled_from(
    [(key,) for key in [*SEED, "package", "force", "extra"]]
    + [
        ("pkg", key)
        for key in [*SEED["pkg"], "type", "replicas", "user", "restart", "rollout", "stop", "health", "script", "working_dir", "x"]
    ]
    + [("pkg", "environment", "ENV"), ("pkg", "environment", "x=y")]
)


@st.composite
def changed_seeds(draw: st.DrawFn) -> bytes:
    data: Any = copy.deepcopy(SEED)
    for path in draw(st.lists(PATHS, min_size=1, max_size=2, unique=True)):
        holder = data
        for key in path[:-1]:
            holder = holder.get(key) if isinstance(holder, dict) else None
        if isinstance(holder, dict):  # else an earlier change has replaced what this path leads through
            holder[path[-1]] = draw(VALUES)
    return json.dumps(data).encode()


@st.composite
def damaged_seeds(draw: st.DrawFn) -> bytes:
    text = json.dumps(SEED).encode()
    at = draw(st.integers(0, len(text)))
    return text[:at] + draw(st.binary(max_size=5)) + text[at + draw(st.integers(0, 5)) :]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        changed_seeds() | damaged_seeds() | st.binary(max_size=50) | VALUES.map(lambda value: json.dumps(value).encode()),
        min_size=10,
        max_size=20,
    )
)
def test_no_body_gets_a_5xx_and_only_a_200_changes_anything(bodies: list[bytes]) -> None:
    async def test(api: Api) -> None:
        for body in bodies:
            before, woken = api.everything(), len(api.woken)
            answer = await api.apply(body)
            if answer.status == 200:
                assert (len(api.woken) > woken) == answer.json["changed"]
                assert (api.everything() != before) == answer.json["changed"]
            else:
                assert answer.status in (400, 422)
                assert_problem(answer, answer.status)
                assert (api.everything(), len(api.woken)) == (before, woken)

    run(test)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["GET", "POST", "DELETE", "HEAD", "PUT", "OPTIONS", "X"]), st.binary(max_size=12), st.binary(max_size=12)
        ),
        min_size=10,
        max_size=20,
    )
)
def test_no_path_and_no_query_gets_a_5xx_or_changes_anything(requests: list[tuple[str, bytes, bytes]]) -> None:
    async def test(api: Api) -> None:
        for number, (method, name, query) in enumerate(requests):
            start = (b"/v1/status/", b"/v1/apps/", b"/v1/apply?wait=", b"/")[number % 4]
            tail = (b"", b"/hold", b"&", b"?")[number % 4]
            target = start + _escaped(name) + tail + b"?limit=" + _escaped(query)
            answer = await api.raw(method.encode() + b" " + target + f" HTTP/1.1\r\n{LINES}\r\n".encode())
            assert 200 <= int(answer.split()[1]) < 500, (target, answer)
        assert (api.everything(), api.woken) == ({}, [])

    run(test)


def _escaped(raw: bytes) -> bytes:
    """Percent-encoded where a byte could not stand in a request line, so that what is odd reaches the application."""
    return b"".join(bytes([byte]) if 0x21 <= byte <= 0x7E and byte not in b"#" else b"%%%02X" % byte for byte in raw)


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/v1/apply", pkg(replicas=-1), "pkg.replicas must be greater than or equal to 0"),
        ("/v1/apply", seed(colour="red"), "colour: unknown field"),
        ("/v1/apply", pkg(script="x"), "pkg.script: docker apps have no such field"),
        ("/v1/apply", seed(version=1.5), "version must be a string, not a number (in YAML: put it in quotes)"),
        ("/v1/apply", pkg(stop={"signal": "X"}), "pkg.stop.signal: 'X' is not the name of a signal (for example SIGTERM)"),
        ("/v1/apply", pkg(image="x" * 1025), "pkg.image must not have more than 1024 characters"),
        ("/v1/apply", pkg(args=["x"] * 2049), "pkg.args must not have more than 2048 entries"),
        (
            "/v1/apply",
            pkg(ports=[{"host": 80, "host_port": 81, "container_port": 80}]),
            "pkg.ports[0].host is another name for host_port; give one of them",
        ),
        ("/v1/apply", seed(pkg={"type": "script", "script": ""}), "pkg.script must not be empty"),
        ("/v1/apply", seed(pkg={"type": "binary", "command": [1]}), "pkg.command[0] must be a string"),
        ("/v1/apps/a/hold", {"reason": "x" * 501}, "reason must not have more than 500 characters"),
        ("/v1/apps/a/restart", [], "the body must be an object"),
    ],
)
def test_the_message_is_one_sentence_about_the_first_fault(path: str, body: Any, message: str) -> None:
    async def test(api: Api) -> None:
        answer = await api.send("POST", path, body)
        assert_problem(answer, 422)
        assert answer.json["message"] == message

    run(test)
