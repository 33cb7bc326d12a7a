"""Real processes under real keepers, on a work dir that leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import signal
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from boreas_agent.clock import Clock, SystemClock
from boreas_agent.drivers import cgroup, procfs
from boreas_agent.drivers.process import ProcessDriver
from boreas_agent.drivers.runs import Layout, read_runs
from boreas_agent.drivers.tree import Tree
from boreas_agent.model import Exit, Instance, InstanceName, Observed, Phase, Revision
from boreas_agent.records import encode
from boreas_agent.spec import instance_hash, parse_pkg, spec_hash
from tests.waiting import eventually, eventually_async

T = TypeVar("T")


def want(app: str = "web", *, revision: int = 1, replica: int = 0, version: str = "v1", made_by: int | None = None, **pkg: Any) -> Instance:
    """An instance of a binary (or, with ``type``, a script); ``made_by``: the revision that last asked for everything to be replaced."""
    parsed, generation = parse_pkg({"type": "binary", **pkg}), made_by or revision
    made_of = instance_hash(version, parsed, generation, revision)
    record = Revision(app, revision, version, "apply", generation, parsed, spec_hash(version, parsed), made_of, datetime.now(UTC), "test")
    return Instance(InstanceName(app, revision, replica), version, made_of, parsed, encode(record))


def shell(line: str, app: str = "web", **pkg: Any) -> Instance:
    """A binary app that runs a line of shell."""
    return want(app, command=["/bin/sh", "-c", line], **pkg)


def sleeper(app: str = "web", **pkg: Any) -> Instance:
    """A binary app that runs until it is told to stop."""
    return want(app, command=["/bin/sleep", "1000000"], **pkg)


class Ground:
    """A work dir, the drivers on it, and everything that came of them."""

    def __init__(self, work_dir: Path, find_cgroups: Callable[[], Path | None] = cgroup.find_root) -> None:
        self.work_dir = work_dir
        self.layout = Layout(work_dir)
        self.identity = str(uuid.uuid4())
        self.find_cgroups = find_cgroups
        self.clock = SystemClock()

    def make(self, clock: Clock | None = None) -> ProcessDriver:
        """A driver as an agent would have it after another restart."""
        return ProcessDriver(self.work_dir, self.identity, clock or self.clock, find_cgroups=self.find_cgroups)

    def run(self, work: Callable[[ProcessDriver], Coroutine[Any, Any, T]]) -> T:
        """Do ``work`` with an open driver, on a loop of its own."""

        async def opened() -> T:
            async with self.open() as driver:
                return await work(driver)

        return asyncio.run(opened())

    @asynccontextmanager
    async def open(self) -> AsyncIterator[ProcessDriver]:
        """An open driver; afterwards it is closed, and what it started runs on."""
        driver = self.make()
        await driver.open()
        try:
            yield driver
        finally:
            await driver.close()

    def keepers(self) -> list[int]:
        """The living keepers of this work dir."""
        pids = (int(path.name.split(".")[1]) for path in self.layout.keeper.glob("[!.]*.sock"))
        return [pid for pid in pids if (found := procfs.stat(pid)) and not found.dead]

    def spares(self) -> list[int]:
        """Children of the keepers that wait for a request."""
        keepers = self.keepers()
        return [one.pid for one in procfs.processes() if one.parent in keepers and _command(one.pid) == _command(one.parent)]

    def log(self, want: Instance, stream: str = "stdout") -> str:
        """What the replica wrote."""
        path = self.layout.log(want.name, stream)
        return path.read_text() if path.exists() else ""

    def clear(self) -> None:
        """End and delete everything."""
        for pid in self.keepers():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        eventually(lambda: not self.keepers())
        for log in self.layout.keeper.glob("*.log"):
            assert "Traceback" not in log.read_text(), log.read_text()[-3000:]
        groups = []
        for folder in self.work_dir.glob("apps/*/instances/*"):
            for run in read_runs(folder):
                if run.claim:
                    mark = f"BOREAS_INSTANCE={self.identity}/{folder.parent.parent.name}.{folder.name}"
                    tree = Tree(run.claim, self.clock.boot_id, mark)
                    eventually(lambda tree=tree: tree.kill() or not tree.members())
                    groups.append(run.claim.cgroup)
        root = self.find_cgroups()
        if root:
            own = cgroup.path_of(root, self.identity, "keeper").parent
            eventually(lambda: cgroup.members(own) == ())
            cgroup.sweep(own)
            cgroup.remove(own)


def _command(pid: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


@contextmanager
def ground(work_dir: Path, find_cgroups: Callable[[], Path | None] = cgroup.find_root) -> Iterator[Ground]:
    """A ground that is cleared afterwards."""
    made = Ground(work_dir, find_cgroups)
    try:
        yield made
    finally:
        made.clear()


async def blank_is_ready(place: Ground) -> bool:
    """The folders of an app to come are there; the driver takes note of it in this moment."""
    return any(place.layout.apps.glob(".blank.*/instances/*/1.claim"))


async def only(driver: ProcessDriver, app: str = "web") -> Observed:
    """The one instance of the app."""
    found = await driver.observe(app)
    assert len(found) == 1, found
    return found[0]


async def seen_in(driver: ProcessDriver, phase: Phase, app: str = "web") -> Observed:
    """The one instance of the app, once it is in ``phase``."""

    async def check() -> Sequence[Observed]:
        return [one for one in await driver.observe(app) if one.phase is phase]

    return (await eventually_async(check, 20))[0]


async def ended(driver: ProcessDriver, app: str = "web") -> Exit:
    """How the one instance of the app ended."""
    seen = await seen_in(driver, Phase.EXITED, app)
    assert seen.last_exit
    return seen.last_exit


def number_of(one: Exit) -> int:
    """How many times its instance had been started by then."""
    return int(one.run.partition("@")[0])


def alive(pid: int) -> bool:
    """There is such a process and it is no zombie."""
    found = procfs.stat(pid)
    return found is not None and not found.dead
