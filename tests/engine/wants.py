"""Instances as the rest of the agent would ask the driver for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

from boreas_agent.drivers.docker import DockerDriver
from boreas_agent.model import Instance, InstanceName, Observed, Phase, Revision
from boreas_agent.records import encode
from boreas_agent.spec import instance_hash, parse_pkg, spec_hash
from tests.engine.engine import IMAGE, SERVE
from tests.waiting import eventually_async

T = TypeVar("T")
Make = Callable[[], DockerDriver]


def want(app: str = "web", *, revision: int = 1, replica: int = 0, made_by: int | None = None, **pkg: Any) -> Instance:
    """An instance of a docker app, serving until it is told to stop unless ``pkg`` says otherwise.

    ``made_by``: the revision whose version and generation it has.
    """
    parsed, generation = parse_pkg({"type": "docker", "image": IMAGE, "command": list(SERVE), **pkg}), made_by or revision
    version = f"v{generation}"
    made_of = instance_hash(version, parsed, generation, revision)
    record = Revision(app, revision, version, "apply", generation, parsed, spec_hash(version, parsed), made_of, datetime.now(UTC), "test")
    return Instance(InstanceName(app, revision, replica), record.version, made_of, parsed, encode(record))


def shell(script: str, app: str = "web", **pkg: Any) -> Instance:
    """An instance that runs one line of shell."""
    return want(app, command=["/bin/sh", "-c", script], **pkg)


def using(make: Make, work: Callable[[DockerDriver], Coroutine[Any, Any, T]]) -> T:
    """Run ``work`` with an open driver, on a loop of its own."""

    async def run() -> T:
        async with opened(make()) as driver:
            return await work(driver)

    return asyncio.run(run())


@asynccontextmanager
async def opened(driver: DockerDriver) -> AsyncIterator[DockerDriver]:
    """The driver, open until the end of the block."""
    await driver.open()
    try:
        yield driver
    finally:
        await driver.close()


async def only(driver: DockerDriver, app: str = "web") -> Observed:
    """The one instance of the app."""
    found = await driver.observe(app)
    assert len(found) == 1, found
    return found[0]


async def seen_in(driver: DockerDriver, phase: Phase, app: str = "web") -> Observed:
    """The one instance of the app, once it is in ``phase``."""

    async def check() -> Sequence[Observed]:
        return [one for one in await driver.observe(app) if one.phase is phase]

    return (await eventually_async(check, 20))[0]
