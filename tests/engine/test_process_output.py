"""What processes wrote, read back: in order, with times, nothing twice and nothing lost."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from boreas_agent.drivers.output import Reader
from boreas_agent.drivers.process import ProcessDriver
from boreas_agent.keeper.logs import bound, note, notes_of
from boreas_agent.model import OutputLine, OutputQuery
from tests.engine.processes import Ground, ended, ground, only, shell
from tests.waiting import eventually, eventually_async


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Ground]:
    with ground(tmp_path) as made:
        yield made


async def lines_of(driver: ProcessDriver, query: OutputQuery, app: str = "web") -> list[OutputLine]:
    async with aclosing(driver.output(app, query)) as batches:
        return [line async for batch in batches for line in batch]


def said(lines: list[OutputLine]) -> list[bytes]:
    return [line.text for line in lines]


def test_both_streams_of_all_replicas_come_with_the_times_at_which_they_were_written(place: Ground) -> None:
    async def work(driver: ProcessDriver) -> tuple[list[OutputLine], ...]:
        await driver.start(shell("echo one; echo two >&2; printf three", replicas=2), 0)
        await ended(driver)
        await driver.start(shell("echo other", replica=1, replicas=2), 0)
        return (
            await lines_of(driver, OutputQuery(replica=0)),
            await lines_of(driver, OutputQuery(stream="stderr")),
            await lines_of(driver, OutputQuery(tail=2, replica=0, stream="stdout")),
            await lines_of(driver, OutputQuery(tail=0)),
            await lines_of(driver, OutputQuery(replica=7)),
        )

    began = datetime.now(UTC)
    first, errors, tail, nothing, nobody = place.run(work)
    assert sorted(said(first)) == [b"one", b"three", b"two"]
    assert all(began - timedelta(seconds=1) <= line.at <= datetime.now(UTC) for line in first)
    assert [(line.text, line.stream, line.replica) for line in errors] == [(b"two", "stderr", 0)]
    assert said(tail) == [b"one", b"three"]
    assert nothing == nobody == []


def test_lines_from_before_a_moment_are_left_out(place: Ground) -> None:
    async def work(driver: ProcessDriver) -> tuple[list[bytes], list[bytes]]:
        await driver.start(shell("echo old"), 0)
        await ended(driver)
        between = datetime.now(UTC)
        await driver.start(shell("echo new"), 1)
        await ended(driver)
        return said(await lines_of(driver, OutputQuery(since=between))), said(await lines_of(driver, OutputQuery()))

    assert place.run(work) == ([b"new"], [b"old", b"new"])


def test_who_follows_hears_every_line_once_over_restarts_of_app_and_agent(place: Ground) -> None:
    heard: list[OutputLine] = []

    async def follow(driver: ProcessDriver, until: bytes, query: OutputQuery) -> None:
        async with asyncio.timeout(20), aclosing(driver.output("web", query)) as batches:
            async for batch in batches:
                heard.extend(batch)
                if batch and batch[-1].text == until:
                    return

    async def first(driver: ProcessDriver) -> None:
        await driver.start(shell("echo a; sleep 0.1; echo b"), 0)
        await follow(driver, b"b", OutputQuery(follow=True))
        await ended(driver)
        await driver.start(shell("echo c; sleep 0.1; echo d; sleep 1000000"), 1)

    async def second(driver: ProcessDriver) -> None:
        last = heard[-1].at
        before = sum(line.at == last for line in heard)
        again: list[OutputLine] = heard[:]
        heard.clear()
        await follow(driver, b"d", OutputQuery(follow=True, since=last))
        heard[:] = [*again, *heard[before:]]
        await driver.stop(await only(driver), "SIGKILL", 0)

    place.run(first)
    place.run(second)
    assert said(heard) == [b"a", b"b", b"c", b"d"]


def test_a_log_that_is_bounded_while_it_is_read_loses_only_its_oldest_lines_and_doubles_none(place: Ground) -> None:
    asked = shell("i=0; while [ $i -lt 60000 ]; do echo line $i; i=$((i+1)); done", log={"max_size": "64Ki", "max_files": 2})

    async def bounded() -> bool:
        return place.layout.log(asked.name, "stdout").stat().st_blocks * 512 <= 128 * 1024

    async def work(driver: ProcessDriver) -> tuple[list[bytes], list[bytes]]:
        heard: list[bytes] = []
        await driver.start(asked, 0)
        async with asyncio.timeout(60), aclosing(driver.output("web", OutputQuery(follow=True))) as batches:
            async for batch in batches:
                heard += said(list(batch))
                if heard and heard[-1] == b"line 59999":
                    break
        await ended(driver)
        await eventually_async(bounded)
        return heard, said(await lines_of(driver, OutputQuery()))

    heard, kept = place.run(work)
    numbers = [int(line.removeprefix(b"line ")) for line in heard]
    assert numbers == sorted(set(numbers))
    assert kept[-1] == b"line 59999"
    assert [int(line.removeprefix(b"line ")) for line in kept] == list(range(60000 - len(kept), 60000))


def test_a_log_is_bounded_while_no_agent_runs(place: Ground) -> None:
    asked = shell("sleep 0.3; head -c 3000000 /dev/zero | tr '\\0' 'x'; sleep 1000000", log={"max_size": "64Ki", "max_files": 2})

    async def start(driver: ProcessDriver) -> None:
        await driver.start(asked, 0)

    async def stop(driver: ProcessDriver) -> None:
        await driver.stop(await only(driver), "SIGKILL", 0)

    place.run(start)
    path = place.layout.log(asked.name, "stdout")
    eventually(lambda: path.stat().st_size == 3_000_000)
    eventually(lambda: path.stat().st_blocks * 512 <= 128 * 1024)
    place.run(stop)


def test_notes_of_times_are_bounded_and_the_newest_kept(tmp_path: Path) -> None:
    path = str(tmp_path / "0.stdout.log")
    for size in range(70_000):
        note(path, size)
    notes = Path(notes_of(path)).read_bytes()
    assert len(notes) < 65_536 * 16
    assert int.from_bytes(notes[-16:-8], "little") == 69_999


def test_a_log_of_more_than_a_tebibyte_begins_anew_without_losing_its_end(tmp_path: Path) -> None:
    path = tmp_path / "0.stdout.log"
    with path.open("wb") as file:
        os.truncate(file.fileno(), 1 << 41)
        file.seek(0, os.SEEK_END)
        file.write(b"x" * 200_000 + b"\nlast\n")
    note(str(path), 7)
    cut, size = bound(str(path), 100_000)
    if size == (1 << 41) + 200_006:
        pytest.skip("this file system cannot take the start out of a file")
    assert cut
    assert size < 60_000
    assert path.read_bytes().endswith(b"x\nlast\n")


def test_a_reader_that_is_slower_than_the_bound_goes_on_with_what_is_left(tmp_path: Path) -> None:
    log = tmp_path / "0.stdout.log"
    log.write_bytes(b"old line\n" * 200_000)
    reader = Reader(log, 0, "stdout")
    reading = reader.lines(whole=True)
    assert next(reading).text == b"old line"
    with log.open("ab") as file:
        file.write(b"new line\n" * 400_000)
    bound(str(log), 1024 * 1024)
    assert sum(1 for _ in reading) < 200_000
    rest = said(list(reader.lines(whole=True)))
    assert set(rest[1:]) == {b"new line"}


def is_quiet(place: Ground, log: Path) -> bool:
    """Whether the kernel is to tell a keeper of it."""
    told = f" ino:{log.stat().st_ino:x} "
    return any(told in watched(info) for keeper in place.keepers() for info in Path(f"/proc/{keeper}/fdinfo").iterdir())


def watched(info: Path) -> str:
    """What the kernel says of a descriptor of another process, which may close it meanwhile."""
    try:
        return info.read_text()
    except OSError:
        return ""


def test_a_log_that_was_quiet_for_long_is_bounded_all_the_same_and_its_times_are_known(place: Ground, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    line = f"echo early; while [ ! -e {gate} ]; do sleep 0.05; done; yes | head -c 3000000; echo late; exec sleep 1000000"
    asked = shell(line, log={"max_size": "64Ki", "max_files": 2})
    log = place.layout.log(asked.name, "stdout")

    async def work(driver: ProcessDriver) -> None:
        await driver.start(asked, 0)
        await asyncio.to_thread(eventually, lambda: is_quiet(place, log), 30)
        began = datetime.now(UTC)
        gate.touch()
        await asyncio.to_thread(eventually, lambda: log.stat().st_size > 3_000_000 and log.stat().st_blocks * 512 <= 128 * 1024, 20)
        lines = await lines_of(driver, OutputQuery())
        assert lines[-1].text == b"late"
        assert began - timedelta(seconds=0.1) <= lines[-1].at <= datetime.now(UTC)
        await driver.stop(await only(driver), "SIGKILL", 0)

    place.run(work)
