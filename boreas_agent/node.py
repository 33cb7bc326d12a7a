"""The machine itself, for status: what it is, how full, how busy, and whether its Docker engine answers.

Nobody who asks for the status waits for any of this: it is looked at now and then in the background, and served from
memory. A disk or an engine that hangs makes the facts older, and nothing slower. Nothing here decides anything.
"""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Protocol

from msgspec import Struct, field
from msgspec.structs import replace
from pydantic import ByteSize

from boreas_agent.aside import Aside
from boreas_agent.clock import Clock
from boreas_agent.errors import BoreasError
from boreas_agent.model import Event
from boreas_agent.notices import Notices
from boreas_agent.settings import Node

log = logging.getLogger(__name__)

SAMPLE_DEADLINE_SECONDS = 5.0
ENGINE_SECONDS = 30.0
"""Between two questions to an engine whose event stream is up, or that is away: a change of that is told, but for one that hangs."""
DOUBTFUL_SECONDS = 5.0
"""The same where only one of the two says that the engine is there: its answer, or its event stream."""
PAUSE_SECONDS = 1.0
"""Between any two questions, however often its event stream comes and goes."""
ENGINE_DEADLINE_SECONDS = 10.0
RELIEF = 1.2
"""Free space must grow to so many times the threshold before the disk counts as well again, or it would go back and forth."""
INODES_LOW = 0.05
"""A disk without free inodes takes no file either; kubelet's share."""


class Engine(Protocol):
    """What the Docker driver knows about the engine as a whole."""

    enabled: bool
    listening: bool

    async def changed(self) -> None:
        """Returns when the engine came or went."""

    async def version(self) -> str:
        """Asked for now. Raises BoreasError."""


class About(Struct, frozen=True):
    """What does not change while the agent runs. ``identity`` marks what is ours; ``id`` and ``hostname`` are for people."""

    id: str
    identity: str
    hostname: str
    version: str
    started: datetime
    cpus: int = field(default_factory=lambda: os.cpu_count() or 1)


class Sample(Struct, frozen=True):
    """One look at the machine; sizes in bytes, ``load`` over 1, 5 and 15 minutes."""

    at: datetime
    disk_total: int
    disk_free: int
    inodes_total: int
    inodes_free: int
    load: tuple[float, float, float]
    memory_total: int
    memory_available: int


class Docker(Struct, frozen=True):
    """``reachable`` None: not asked yet. ``version`` is the last one known, ``message`` why it cannot be reached."""

    enabled: bool
    reachable: bool | None = None
    version: str | None = None
    since: datetime | None = None
    message: str = ""


class Condition(Struct, frozen=True):
    """Something about the machine that people should know; ``status`` True: it is so, since ``since``."""

    type: str
    status: bool
    message: str
    since: datetime


class NodeFacts(Struct, frozen=True):
    """All of it, as last seen."""

    about: About
    docker: Docker
    work_dir: Path
    sample: Sample | None = None
    conditions: tuple[Condition, ...] = ()


class NodeWatch:
    """Looks at the machine in the background."""

    def __init__(self, about: About, work_dir: Path, settings: Node, engine: Engine, *, clock: Clock, notices: Notices) -> None:  # noqa: PLR0913
        self._settings = settings
        self._engine = engine
        self._clock = clock
        self._notices = notices
        self._aside = Aside("node-sample")
        self._overdue = False
        self.facts = NodeFacts(about, Docker(engine.enabled), work_dir)
        """As last seen; a new value after each look."""

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._sample_for_ever())
            if self._engine.enabled:
                group.create_task(self._ask_engine_for_ever())

    # --- disk, load, memory ----------------------------------------------------------------------

    async def look(self) -> None:
        """One sample; a disk that does not answer leaves the last one in place."""
        try:
            sample = await self._aside.run(self._sample, SAMPLE_DEADLINE_SECONDS)
        except (OSError, LookupError, ValueError, RuntimeError) as error:  # TimeoutError is an OSError
            if not self._overdue:
                log.warning("cannot look at the machine; status shows older facts", extra={"error": str(error) or "no answer"})
            self._overdue = True
            return
        self._overdue = False
        pressure = disk_pressure(self._known("DiskPressure"), sample, self._settings.low_bytes(sample.disk_total))
        self.facts = replace(self.facts, sample=sample, conditions=(pressure,))

    async def _sample_for_ever(self) -> None:
        while True:
            await self.look()
            await self._tell_of_disk()
            await asyncio.sleep(self._settings.sample_interval)

    async def _tell_of_disk(self) -> None:
        pressure = self._known("DiskPressure")
        if pressure is not None:
            kind = "NodeHasDiskPressure" if pressure.status else "NodeHasNoDiskPressure"
            await self._notices.say("disk", kind, Event(kind, f"{self.facts.work_dir}: {pressure.message}"), at_first=pressure.status)

    def _known(self, kind: str) -> Condition | None:
        return next((condition for condition in self.facts.conditions if condition.type == kind), None)

    def _sample(self) -> Sample:
        """In a thread of its own: a network file system may not answer."""
        disk = os.statvfs(self.facts.work_dir)
        memory = _memory(Path("/proc/meminfo").read_text(encoding="ascii"))
        return Sample(
            self._clock.now(),
            disk.f_blocks * disk.f_frsize,
            disk.f_bavail * disk.f_frsize,
            disk.f_files,
            disk.f_favail,
            os.getloadavg(),
            memory["MemTotal"],
            memory["MemAvailable"],
        )

    # --- the engine ------------------------------------------------------------------------------

    async def _ask_engine_for_ever(self) -> None:
        while True:
            docker = await self._ask_engine()
            self.facts = replace(self.facts, docker=docker)
            await self._notices.say("docker", f"{docker.reachable} {docker.version}", _engine_event(docker))
            asked = self._clock.boottime()
            with suppress(TimeoutError):
                async with asyncio.timeout(ENGINE_SECONDS if docker.reachable == self._engine.listening else DOUBTFUL_SECONDS):
                    await self._engine.changed()
            await asyncio.sleep(max(0.0, asked + PAUSE_SECONDS - self._clock.boottime()))

    async def _ask_engine(self) -> Docker:
        before = self.facts.docker
        version, message = await self._answer()
        reachable = version is not None
        since = before.since if reachable == before.reachable else self._clock.now()
        return Docker(True, reachable, version or before.version, since, message)

    async def _answer(self) -> tuple[str | None, str]:
        """The engine's version, or None and why there is no answer."""
        try:
            async with asyncio.timeout(ENGINE_DEADLINE_SECONDS):
                return await self._engine.version(), ""
        except TimeoutError:
            return None, f"cannot reach Docker: no answer within {ENGINE_DEADLINE_SECONDS:g} s"
        except BoreasError as error:
            return None, str(error)
        except Exception as error:  # noqa: BLE001  # whatever answers there is no engine
            return None, f"cannot understand what answers in Docker's place: {type(error).__name__}: {error}"


def disk_pressure(before: Condition | None, sample: Sample, low: int) -> Condition:
    """Whether the disk is low on space or inodes. Pure; one that is low stays so until there is clearly more room."""
    was = before is not None and before.status
    factor = RELIEF if was else 1.0
    # Above the whole disk no room would ever be enough.
    space = sample.disk_free < min(low * factor, sample.disk_total)
    inodes = low > 0 and sample.inodes_total > 0 and sample.inodes_free < sample.inodes_total * INODES_LOW * factor
    share = f"{100 * sample.disk_free / sample.disk_total:.1f}%" if sample.disk_total else "nothing"
    message = f"{_size(sample.disk_free)} free ({share} of {_size(sample.disk_total)}), low below {_size(low)}"
    if inodes:
        message = f"{sample.inodes_free} of {sample.inodes_total} inodes free; {message}"
    status = space or inodes
    since = before.since if before is not None and was == status else sample.at
    return Condition("DiskPressure", status, message, since)


def _engine_event(docker: Docker) -> Event:
    if docker.reachable:
        return Event("DockerReachable", f"Docker {docker.version} answers")
    return Event("DockerUnreachable", docker.message)


def _size(size: int) -> str:
    return ByteSize(size).human_readable(decimal=True, separator=" ")


def _memory(meminfo: str) -> dict[str, int]:
    """/proc/meminfo in bytes."""
    lines = (line.split() for line in meminfo.splitlines())
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if len(words) == 3}
