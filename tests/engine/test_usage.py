"""What apps use, measured on real processes and containers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from boreas_agent.clock import SystemClock
from boreas_agent.drivers.docker import DockerDriver
from boreas_agent.drivers.process import ProcessDriver
from boreas_agent.usage import Populated, Usage, UsageWatch
from tests.engine import wants
from tests.engine.processes import Ground, ground, want
from tests.waiting import eventually_async

BUSY = "held = bytearray(b'x' * 50_000_000)\nwhile True: pass"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Ground]:
    with ground(tmp_path) as made:
        yield made


async def until(source: Populated, app: str, seconds: float, memory: int) -> Usage:
    """The usage of ``app`` once it has used so much of both, and a share of a processor is known."""
    watch = UsageWatch((source,), SystemClock())

    async def check() -> Usage | None:
        await watch.look()
        used = watch.apps.get(app)
        enough = used is not None and used.cpu_seconds > seconds and used.memory_bytes > memory and used.cpu_percent
        return used if enough else None

    used = await eventually_async(check, 30)
    assert used is not None
    return used


@pytest.mark.parametrize("resources", [{}, {"memory_limit": "256Mi"}])
def test_a_busy_process_shows_what_it_uses_with_and_without_a_limit(place: Ground, resources: dict[str, str]) -> None:
    async def work(driver: ProcessDriver) -> Usage:
        await driver.start(want("busy", command=["/usr/bin/env", "python3", "-c", BUSY], resources=resources), 0)
        used = await until(driver, "busy", 0.2, 50_000_000)
        (seen,) = await driver.observe("busy")
        await driver.stop(seen, "SIGKILL", 0)
        assert driver.pids() == {}
        return used

    used = place.run(work)
    assert used.memory_bytes < 200_000_000
    assert 0 < (used.cpu_percent or 0) < 200, "of one processor; samples that follow each other at once are not exact"


@pytest.mark.docker
def test_a_busy_container_shows_what_it_uses(docker_driver_factory: wants.Make) -> None:
    async def work(driver: DockerDriver) -> Usage:
        await driver.start(wants.shell("while :; do :; done"), 0)
        await wants.only(driver)
        return await until(driver, "web", 0.1, 1)

    assert wants.using(docker_driver_factory, work).memory_bytes < 50_000_000


def test_what_has_ended_is_left_out(place: Ground) -> None:
    class Gone:
        def pids(self) -> dict[str, list[int]]:
            return {"web": [2**22 - 1]}

    watch = UsageWatch((Gone(),), SystemClock())
    asyncio.run(watch.look())
    assert watch.apps["web"].memory_bytes == 0
