"""What containers wrote, read back from a real engine."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from boreas_agent.drivers.docker import DockerDriver
from boreas_agent.errors import Conflict
from boreas_agent.model import OutputLine, OutputQuery, Phase
from tests.engine.engine import Engine
from tests.engine.node import running_node
from tests.engine.test_scenarios_docker import box, container
from tests.engine.wants import Make, only, seen_in, shell, using

pytestmark = pytest.mark.docker


async def lines_of(driver: DockerDriver, query: OutputQuery) -> list[OutputLine]:
    async with aclosing(driver.output("web", query)) as batches:
        return [line async for batch in batches for line in batch]


def said(lines: list[OutputLine]) -> list[bytes]:
    return [line.text for line in lines]


def test_both_streams_come_by_time_and_can_be_told_apart(docker_driver_factory: Make) -> None:
    async def work(driver: DockerDriver) -> tuple[list[OutputLine], ...]:
        await driver.start(shell("echo one; sleep 0.1; echo two >&2; sleep 0.1; echo three"), 0)
        await seen_in(driver, Phase.EXITED)
        return (
            await lines_of(driver, OutputQuery()),
            await lines_of(driver, OutputQuery(stream="stderr")),
            await lines_of(driver, OutputQuery(tail=1)),
            await lines_of(driver, OutputQuery(tail=0)),
            await lines_of(driver, OutputQuery(since=datetime.now(UTC) + timedelta(hours=1))),
            await lines_of(driver, OutputQuery(replica=1)),
        )

    everything, errors, tail, *nothing = using(docker_driver_factory, work)
    assert said(everything) == [b"one", b"two", b"three"]
    assert [(line.text, line.stream, line.replica) for line in errors] == [(b"two", "stderr", 0)]
    assert said(tail) == [b"three"]
    assert nothing == [[], [], []]


def test_who_follows_from_a_moment_on_hears_nothing_older_of_a_container_that_is_silent(docker_driver_factory: Make) -> None:
    async def work(driver: DockerDriver) -> list[bytes]:
        await driver.start(shell("echo old; exec sleep 1000"), 0)
        async with asyncio.timeout(60):
            while not await lines_of(driver, OutputQuery()):
                pass
        query = OutputQuery(since=datetime.now(UTC) + timedelta(milliseconds=1), follow=True)
        async with asyncio.timeout(60), aclosing(driver.output("web", query)) as batches:
            assert await anext(batches) == ()
            await driver.start(shell("echo new; exec sleep 1000", replica=1, replicas=2), 0)
            return said(list(await anext(batches)))

    assert using(docker_driver_factory, work) == [b"new"]


def test_who_follows_is_told_why_a_container_cannot_be_read(docker_driver_factory: Make) -> None:
    async def work(driver: DockerDriver) -> None:
        async with asyncio.timeout(60), aclosing(driver.output("web", OutputQuery(tail=0, follow=True))) as batches:
            assert await anext(batches) == ()
            await driver.start(shell("exec sleep 1000", log={"driver": "none"}), 0)
            await anext(batches)

    with pytest.raises(Conflict):
        using(docker_driver_factory, work)


def test_who_follows_hears_every_line_once_over_restarts_and_another_revision(docker_driver_factory: Make) -> None:
    lasting = "echo {0} begins; trap 'echo {0} ends; exit 0' TERM; while :; do sleep 1 & wait; done"

    async def work(driver: DockerDriver) -> list[bytes]:
        heard: list[bytes] = []

        async def until(line: bytes) -> None:
            while line not in heard:
                heard.extend(said(list(await anext(batches))))

        async with asyncio.timeout(60), aclosing(driver.output("web", OutputQuery(follow=True))) as batches:
            assert await anext(batches) == ()
            first = shell(lasting.format("first"))
            await driver.start(first, 0)
            await until(b"first begins")
            await driver.stop(await only(driver), "TERM", 10)
            await until(b"first ends")
            await driver.start(first, 0)
            while heard.count(b"first begins") < 2:
                heard.extend(said(list(await anext(batches))))
            seen = await only(driver)
            await driver.stop(seen, "TERM", 10)
            await driver.start(shell(lasting.format("second"), revision=2), 0)
            await until(b"second begins")
        return heard

    assert using(docker_driver_factory, work) == [b"first begins", b"first ends", b"first begins", b"first ends", b"second begins"]


def test_a_log_that_the_engine_does_not_keep_is_said_to_be_so(engine: Engine, docker_driver_factory: Make) -> None:
    async def work(driver: DockerDriver) -> None:
        wanted = shell("echo one")
        await driver.start(wanted, 0)
        seen = await seen_in(driver, Phase.EXITED)
        found = engine.client.inspect_container(seen.ref)
        engine.client.remove_container(seen.ref)
        body = {"Image": found["Config"]["Image"], "Labels": found["Config"]["Labels"], "HostConfig": {"LogConfig": {"Type": "none"}}}
        engine.client.create_container_from_config(body | {"Entrypoint": ["/bin/true"]}, found["Name"].lstrip("/"))
        with pytest.raises(Conflict, match="read the output of web"):
            await lines_of(driver, OutputQuery())

    using(docker_driver_factory, work)


def test_a_log_driver_of_the_engine_is_used_as_it_was_asked_for_and_what_it_keeps_can_be_read(clean_engine: Engine, tmp_path: Path) -> None:
    with running_node(tmp_path / "node", clean_engine.socket) as node:
        say = {"command": ["/bin/sh", "-c", "echo hello; exec sleep 3600"]}
        node.apply("web", **box(clean_engine, log={"driver": "local", "max_size": "1Mi", "max_files": 1}, **say))
        node.reaches("web", "running")
        kept = clean_engine.client.inspect_container(container(clean_engine, "web"))["HostConfig"]["LogConfig"]
        assert kept == {"Type": "local", "Config": {"max-size": "1048576", "max-file": "1", "compress": "false"}}
        assert node.boreas("logs", "web").stdout == "hello\n"


def test_logs_of_a_driver_that_cannot_be_read_are_a_conflict_with_the_engines_words(clean_engine: Engine, tmp_path: Path) -> None:
    with running_node(tmp_path / "node", clean_engine.socket) as node:
        node.apply("web", **box(clean_engine, log={"driver": "none"}))
        node.reaches("web", "running")
        code, answer = node.get("/v1/apps/web/logs")
        assert (code, answer["success"]) == (409, False)
        assert "logging driver does not support reading" in answer["message"]


def test_a_log_driver_that_the_engine_does_not_have_is_a_reason_to_read_and_the_old_version_serves_on(
    clean_engine: Engine, tmp_path: Path
) -> None:
    with running_node(tmp_path / "node", clean_engine.socket) as node:
        node.apply("web", **box(clean_engine))
        node.reaches("web", "running")
        node.apply("web", "v2", **box(clean_engine, log={"driver": "nonesuch", "options": {"token": "secret"}}))
        shown = node.reaches("web", "degraded")
        assert "nonesuch" in shown["blocked"]["reason"]
        assert shown["running_version"] == "v1"
        told = f"{node.get('/v1/apps/web/revisions')} {node.events('web')} {node.sql('SELECT spec FROM v_revisions')}"
        assert "***" in told
        assert "secret" not in told
