"""Telling the service manager, and falling silent when something hangs."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import closing
from pathlib import Path

import pytest

from boreas_agent.systemd import Supervisor
from tests.unit.store_harness import opened
from tests.waiting import eventually_async

NAMED = {"NOTIFY_SOCKET": "/run/notify", "WATCHDOG_USEC": "60000000"}


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, Supervisor()),
        ({"WATCHDOG_USEC": "60000000"}, Supervisor()),
        ({"NOTIFY_SOCKET": "vsock:2:1234"}, Supervisor()),
        ({"NOTIFY_SOCKET": "@abstract"}, Supervisor("@abstract")),
        (NAMED, Supervisor("/run/notify", 60.0)),
        (NAMED | {"WATCHDOG_PID": "42"}, Supervisor("/run/notify", 60.0)),
        (NAMED | {"WATCHDOG_PID": "41"}, Supervisor("/run/notify")),
        (NAMED | {"WATCHDOG_USEC": "soon"}, Supervisor("/run/notify")),
        (NAMED | {"WATCHDOG_USEC": "0"}, Supervisor("/run/notify")),
    ],
)
def test_the_environment_says_whom_to_tell(environ: dict[str, str], expected: Supervisor) -> None:
    assert Supervisor.of(environ, 42) == expected


def test_a_manager_that_is_not_there_is_no_trouble(tmp_path: Path) -> None:
    Supervisor(str(tmp_path / "nobody")).ready("fine")
    Supervisor().ready("fine")


def test_a_manager_that_does_not_read_holds_nothing_up(tmp_path: Path) -> None:
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as deaf:
        deaf.bind(str(tmp_path / "notify"))
        for _ in range(5000):
            Supervisor(str(tmp_path / "notify")).tell("WATCHDOG=1")


def test_a_status_of_several_lines_forges_no_other_message(tmp_path: Path) -> None:
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as manager:
        manager.bind(str(tmp_path / "notify"))
        Supervisor(str(tmp_path / "notify")).ready("fine\nMAINPID=1")
        assert manager.recv(4096) == b"READY=1\nSTATUS=fine MAINPID=1"


def test_a_database_that_hangs_silences_the_watchdog_until_it_answers_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as manager:
            manager.bind(str(tmp_path / "notify"))
            manager.setblocking(False)
            fed: list[int] = []

            async def hear() -> int:
                try:
                    while True:
                        fed.append(manager.recv(4096).count(b"WATCHDOG=1"))
                except BlockingIOError:
                    return sum(fed)

            async with opened(tmp_path) as store:

                async def waiting_behind() -> bool:
                    return store._writer.disk.waiting > 0  # one more sign of life

                feeding = asyncio.create_task(Supervisor(str(tmp_path / "notify"), 0.15).keep_telling(lambda: "fine", store.answers))
                await eventually_async(hear)
                release = threading.Event()
                stuck = asyncio.create_task(store._writer.execute(lambda _: release.wait(60)))
                await eventually_async(waiting_behind)
                await hear()
                fed.clear()
                with pytest.raises(AssertionError):
                    await eventually_async(hear, 0.5)
                release.set()
                await stuck
                await eventually_async(hear)
                feeding.cancel()
                await asyncio.wait({feeding})

    asyncio.run(scenario())


def test_a_database_that_fails_does_answer(tmp_path: Path) -> None:
    """A full disk is no reason to start the agent anew."""

    async def scenario() -> None:
        async with opened(tmp_path) as store:
            store._writer.disk._connection.set_authorizer(lambda *_: 1)
            assert await store.answers(5)
            store._writer.disk._connection.set_authorizer(None)

    asyncio.run(scenario())
