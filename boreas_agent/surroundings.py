"""What the agent does besides apps: it looks at its machine and makes itself known to the platform's controller.

Composed apart from the rest because nothing depends on it: whatever goes wrong here is logged and begun again, and
changes nothing for any app.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from boreas_agent import __version__
from boreas_agent.api import Surroundings
from boreas_agent.clock import Clock
from boreas_agent.node import About, Engine, NodeWatch
from boreas_agent.notices import Notices, Record
from boreas_agent.registration import Registrant, Registrar, reachable_url
from boreas_agent.settings import Settings
from boreas_agent.usage import Populated, UsageWatch
from boreas_agent.workdir import WorkDir

log = logging.getLogger(__name__)

AGAIN_SECONDS = 30.0
END_SECONDS = 2.0


class Outlook:
    """The two together. ``record`` commits events."""

    def __init__(  # noqa: PLR0913  # what it looks at, and whom it tells
        self, settings: Settings, work_dir: WorkDir, engine: Engine, record: Record, clock: Clock, *, populated: Sequence[Populated]
    ) -> None:
        agent, notices = settings.agent, Notices(record, clock)
        about = About(agent.id, work_dir.identity, agent.hostname, __version__, clock.now())
        self._watch = NodeWatch(about, work_dir.path, agent.node, engine, clock=clock, notices=notices)
        self._usage = UsageWatch(populated, clock)
        self._registrar: Registrar | None = None
        if agent.operator.url:
            who = Registrant(agent.operator.url, agent.id, agent.operator.advertise_url or own_url(settings))
            self._registrar = Registrar(who, agent.operator.interval, clock, notices)

    def __call__(self) -> Surroundings:
        """As last seen."""
        return Surroundings(self._watch.facts, None if self._registrar is None else self._registrar.registration, self._usage.apps)

    async def look(self) -> None:
        """A first look at the machine, so that the first who asks gets an answer."""
        await self._watch.look()

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Looks and registers for as long as the block lasts; the end waits for neither disk nor controller."""
        tasks = {
            asyncio.create_task(_again_and_again(self._watch.run, "looking at the machine")),
            asyncio.create_task(_again_and_again(self._usage.run, "looking at what apps use")),
        }
        if self._registrar is not None:
            tasks.add(asyncio.create_task(_again_and_again(self._registrar.run, "registering with the controller")))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=END_SECONDS)


def own_url(settings: Settings) -> str:
    """What the controller is told where ``advertise_url`` says nothing."""
    scheme = "https" if settings.server.tls_cert else "http"
    return reachable_url(settings.server.host, settings.server.port, settings.agent.hostname, scheme)


async def _again_and_again(run: Callable[[], Awaitable[None]], what: str) -> None:
    while True:
        try:
            await run()
        except Exception:
            log.exception("ended because of an internal error, begun again", extra={"what": what})
        await asyncio.sleep(AGAIN_SECONDS)
