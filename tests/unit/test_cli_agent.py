"""Commands against the real API over a real store; the test plays the reconciler."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from dataclasses import dataclass

from boreas_agent.model import Health, Status
from tests.unit.api_harness import RUNNING, Api, run, seed
from tests.waiting import eventually_async

CLOCK = {"app": "clock", "version": "v1", "pkg": {"type": "binary", "command": ["/bin/sh"]}}
FAILED = Health(0, Status.FAILED, "crash-looping: exited with code 1")


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str


async def boreas(api: Api, *arguments: str, stdin: str = "") -> Done:
    """Run a client command against ``api``."""
    pipe = asyncio.subprocess.PIPE
    environment = os.environ | {"BOREAS_URL": api.url}
    command = [sys.executable, "-m", "boreas_agent", *arguments]
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment)
    out, err = await asyncio.wait_for(process.communicate(stdin.encode()), 30)
    assert b"Traceback" not in out + err
    assert process.returncode is not None
    return Done(process.returncode, out.decode(), err.decode())


async def while_running(api: Api, arguments: list[str], *steps: tuple[str, Health | None], stdin: str = "") -> Done:
    """Run a command; meanwhile every app of ``steps`` gets its health as soon as it is recorded (None: it is gone)."""
    command = asyncio.create_task(boreas(api, *arguments, stdin=stdin))
    for app, health in steps:

        async def recorded(name: str = app, removed: bool = health is None) -> bool:
            head = api.store.head(name)
            return head is not None and head.revision.removed == removed

        await eventually_async(recorded)
        await (api.is_gone(app) if health is None else api.is_now(app, health))
    return await command


def test_apply_follows_every_app_and_succeeds_when_all_are_healthy(tmp_path):
    file = tmp_path / "apps.yaml"
    file.write_text(json.dumps(CLOCK) + "\n---\n" + json.dumps(CLOCK | {"app": "other"}) + "\n")

    async def test(api: Api) -> None:
        done = await while_running(api, ["apply", "-f", str(file)], ("clock", RUNNING), ("other", RUNNING))
        assert (done.code, done.err) == (0, "")
        assert "clock: revision 1 recorded" in done.out
        assert "clock: ok: running (100) Running" in done.out
        assert "other: ok: running (100) Running" in done.out

    run(test)


def test_apply_fails_when_one_app_fails():
    async def test(api: Api) -> None:
        done = await while_running(api, ["apply", "--wait", "-f", "-"], ("clock", FAILED), stdin=json.dumps(CLOCK))
        assert done.code == 1
        assert "clock: FAILED: failed (0) crash-looping: exited with code 1" in done.out

    run(test)


def test_apply_fails_when_the_time_is_up():
    async def test(api: Api) -> None:
        done = await boreas(api, "apply", "--timeout", "0.5", "-f", "-", stdin=json.dumps(CLOCK))
        assert done.code == 1
        assert "clock: not there after 0.5 s: pending" in done.out

    run(test)


def test_apply_without_waiting_returns_once_it_is_recorded():
    async def test(api: Api) -> None:
        done = await boreas(api, "apply", "--no-wait", "-f", "-", stdin=json.dumps(CLOCK))
        assert done.code == 0
        assert api.store.head("clock") is not None
        assert "clock: unchanged: revision 1 " in (await boreas(api, "apply", "--no-wait", "-f", "-", stdin=json.dumps(CLOCK))).out

    run(test)


def test_a_refused_spec_is_explained_field_by_field_and_the_others_are_applied():
    bad = seed(pkg={"type": "docker", "image": "x", "bogus": 1, "ports": [{"host_port": 0, "container_port": 1}]})

    async def test(api: Api) -> None:
        done = await while_running(api, ["apply", "-f", "-"], ("clock", RUNNING), stdin=json.dumps([bad, CLOCK]))
        assert done.code == 1
        assert "my-app: refused (stdin (document 1)): " in done.out
        assert "\n  pkg.bogus: unknown field\n" in done.out
        assert "\n  pkg.ports[0].host_port: " in done.out
        assert "clock: ok" in done.out
        assert api.store.head("my-app") is None

    run(test)


def test_an_unreadable_file_among_good_ones_changes_nothing(tmp_path):
    (tmp_path / "a.yaml").write_text(json.dumps(CLOCK))

    async def test(api: Api) -> None:
        done = await boreas(api, "apply", "-f", str(tmp_path / "a.yaml"), str(tmp_path / "missing.yaml"))
        assert (done.code, done.err) == (1, f"boreas-agent: cannot read {tmp_path / 'missing.yaml'}: No such file or directory\n")
        assert api.everything() == {}

    run(test)


def test_status_shows_a_table_for_people_and_the_answer_itself_as_json():
    async def test(api: Api) -> None:
        assert "no apps" in (await boreas(api, "status")).out
        await api.apply(CLOCK)
        await api.is_now("clock", Health(100, Status.RUNNING, "Running \x1b[31m[bold]red"))
        table = (await boreas(api, "status")).out
        assert table.split("\n")[0].split() == ["APP", "VERSION", "REV", "TYPE", "REPLICAS", "STATUS", "LEVEL", "UPDATED", "WHY"]
        assert table.split("\n")[1].split()[:7] == ["clock", "v1", "1", "binary", "1", "running", "100"]
        assert "�[31m[bold]red" in table
        assert "1 of 1 apps healthy" in table
        assert json.loads((await boreas(api, "status", "-o", "json")).out) == (await api.get("/v1/status")).json
        assert json.loads((await boreas(api, "status", "clock", "-o", "json")).out) == (await api.get("/v1/status/clock")).json

    run(test)


def test_an_unknown_app_is_one_clear_line():
    async def test(api: Api) -> None:
        for command in (
            ["status", "nope"],
            ["status", "../x"],
            ["restart", "nope"],
            ["remove", "nope"],
            ["hold", "nope"],
            ["release", "a/b"],
        ):
            done = await boreas(api, *command)
            assert done.code == 1
            assert done.err.startswith("boreas-agent: ")
            assert done.err.count("\n") == 1

    run(test)


def test_remove_follows_until_nothing_is_left():
    async def test(api: Api) -> None:
        await api.apply(CLOCK)
        done = await while_running(api, ["remove", "clock"], ("clock", None))
        assert done.code == 0
        assert "clock: ok: removed" in done.out

    run(test)


def test_restart_follows_the_new_revision():
    async def test(api: Api) -> None:
        await api.apply(CLOCK)
        command = asyncio.create_task(boreas(api, "restart", "clock"))

        async def restarted() -> bool:
            return api.store.heads["clock"].revision.revision == 2

        await eventually_async(restarted)
        await api.is_now("clock", RUNNING)
        assert (await command).code == 0

    run(test)


def test_hold_and_release_say_why_and_until_when():
    async def test(api: Api) -> None:
        await api.apply(CLOCK)
        assert (await boreas(api, "hold", "clock", "--reason", "disk swap", "--seconds", "60")).code == 0
        head = api.store.head("clock")
        assert head is not None and head.hold is not None
        assert (head.hold.reason, head.hold.seconds) == ("disk swap", 60)
        assert (await boreas(api, "release", "clock")).code == 0
        head = api.store.head("clock")
        assert head is not None and head.hold is None

    run(test)


def test_the_token_is_sent_as_a_bearer_token_and_never_shown():
    async def test(api: Api) -> None:
        seen: list[bytes] = []

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            seen.append(await reader.readuntil(b"\r\n\r\n"))
            body = json.dumps({"success": False, "message": "the token is not known"}).encode()
            writer.write(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            await writer.drain()
            writer.close()

        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            done = await boreas(api, "status", "--url", f"http://127.0.0.1:{port}", "--token", "s3cret")
        assert b"Authorization: Bearer s3cret\r\n" in seen[0]
        assert (done.code, done.err) == (1, "boreas-agent: the token is not known\n")

    run(test)


def test_something_else_on_the_port_is_told_from_an_agent():
    async def test(api: Api) -> None:
        for reply in (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n<ht>", b"SSH-2.0-x\r\n", b""):

            async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, reply: bytes = reply) -> None:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(reply)
                writer.close()

            async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
                url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
                done = await boreas(api, "status", "--url", url)
            assert done.code == 1
            assert url in done.err

    run(test)


def test_events_are_shown_the_newest_last_as_a_table_or_as_they_are() -> None:
    async def test(api: Api) -> None:
        await api.apply(CLOCK)
        await api.apply(seed())
        table = (await boreas(api, "events")).out.splitlines()
        assert table[0].split() == ["AT", "APP", "REV", "KIND", "MESSAGE"]
        assert [line.split()[1:4] for line in table[1:]] == [["clock", "1", "Applied"], ["my-app", "1", "Applied"]]
        rows = json.loads((await boreas(api, "events", "clock", "--limit", "1", "-o", "json")).out)
        assert [(row["app"], row["kind"]) for row in rows] == [("clock", "Applied")]
        assert (
            await boreas(api, "events", "a/b")
        ).err == "boreas-agent: app must be the name of an app\n  app: must be the name of an app\n"

    run(test)


def test_events_are_followed_until_ctrl_c() -> None:
    async def test(api: Api) -> None:
        command = [sys.executable, "-m", "boreas_agent", "events", "--follow", "-o", "json", "--url", api.url]
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        for app in ("first", "second", "third"):
            await api.apply(seed(app=app))
            line = json.loads(await asyncio.wait_for(process.stdout.readline(), 30))
            assert (line["app"], line["kind"]) == (app, "Applied")
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), 10) == 130

    run(test)
