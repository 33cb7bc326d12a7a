"""An engine's socket that is not there: who waits is told when it appears."""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from boreas_agent.drivers import docker_arrival
from boreas_agent.drivers.docker_arrival import Arrival
from tests.waiting import eventually_async


@asynccontextmanager
async def waiting(path: Path) -> AsyncIterator[asyncio.Task[bool]]:
    """Somebody who already watches for the socket at ``path``."""
    with closing(Arrival(str(path))) as arrival:
        before = watches()
        task = asyncio.create_task(arrival.within(0))

        async def begun() -> bool:
            return watches() > before

        await eventually_async(begun)
        yield task
        task.cancel()


def watches() -> int:
    """How many files this process has the kernel tell of."""
    return sum(len(re.findall("(?m)^inotify ", file.read_text())) for file in Path("/proc/self/fdinfo").iterdir() if file.exists())


def appears(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def moved_there(path: Path) -> None:
    appears(path.with_suffix(".new"))
    path.with_suffix(".new").rename(path)


@pytest.mark.parametrize("how", [appears, moved_there])
def test_a_socket_that_appears_ends_the_wait_and_nothing_else_beside_it_does(tmp_path: Path, how: Callable[[Path], None]) -> None:
    async def test() -> None:
        async with waiting(tmp_path / "docker.sock") as task:
            (tmp_path / "another").touch()
            done, _ = await asyncio.wait({task}, timeout=0.1)
            assert not done
            how(tmp_path / "docker.sock")
            assert await asyncio.wait_for(task, 10)

    asyncio.run(test())


def test_a_link_is_followed_to_where_the_socket_will_be(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "docker.sock").symlink_to(tmp_path / "real/engine.sock")

    async def test() -> None:
        async with waiting(tmp_path / "docker.sock") as task:
            appears(tmp_path / "real/engine.sock")
            assert await asyncio.wait_for(task, 10)

    asyncio.run(test())


def test_a_socket_that_came_before_anybody_waited_is_not_waited_for(tmp_path: Path) -> None:
    """It is there and yet nobody answers: that is asked again soon, which is no arrival."""
    appears(tmp_path / "docker.sock")

    async def test() -> None:
        with closing(Arrival(str(tmp_path / "docker.sock"))) as arrival:
            assert not await asyncio.wait_for(arrival.within(0.01), 10)

    asyncio.run(test())


def test_a_folder_that_is_not_there_is_asked_for_and_one_that_goes_is_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    path = folder / "docker.sock"

    async def test() -> None:
        with closing(Arrival(str(path))) as arrival:
            assert not await asyncio.wait_for(arrival.within(0.01), 10)
        folder.mkdir()
        async with waiting(path) as task:
            shutil.rmtree(folder)
            assert not await asyncio.wait_for(task, 10)

    asyncio.run(test())


def test_where_nothing_can_be_watched_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses() -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(docker_arrival, "Inotify", refuses)

    async def test() -> None:
        with closing(Arrival(str(tmp_path / "docker.sock"))) as arrival:
            assert not await asyncio.wait_for(arrival.within(0.01), 10)

    asyncio.run(test())


def test_the_socket_is_looked_for_now_and_then_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker_arrival, "AWAY_SECONDS", 0.01)

    async def test() -> None:
        async with waiting(tmp_path / "docker.sock") as task:
            assert not await asyncio.wait_for(task, 10)

    asyncio.run(test())


def test_a_folder_that_is_made_anew_is_the_one_that_counts(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()

    async def test() -> None:
        async with waiting(folder / "docker.sock") as task:
            folder.rename(tmp_path / "old")
            assert not await asyncio.wait_for(task, 10)
            folder.mkdir()
        async with waiting(folder / "docker.sock") as task:
            appears(folder / "docker.sock")
            assert await asyncio.wait_for(task, 10)

    asyncio.run(test())


def test_a_path_that_leads_nowhere_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")

    async def test() -> None:
        with closing(Arrival(str(tmp_path / "loop" / "docker.sock"))) as arrival:
            assert not await asyncio.wait_for(arrival.within(0.01), 10)

    asyncio.run(test())


def test_after_each_wait_the_watch_is_another_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that it is where the path leads by then, and none is left open."""
    monkeypatch.setattr(docker_arrival, "AWAY_SECONDS", 0.01)

    async def test() -> None:
        before = watches()
        with closing(Arrival(str(tmp_path / "docker.sock"))) as arrival:
            for _ in range(3):
                assert not await arrival.within(0)
                assert watches() == before

    asyncio.run(test())
