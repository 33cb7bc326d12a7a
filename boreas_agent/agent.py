"""The composition root: builds the parts, starts them in order, stops them in reverse.

Stopping the agent stops no app. Order at start: the lock, so that nothing below is shared with another agent; the
database; the port, so that an agent that cannot serve touches nothing (what is applied from here on is recorded);
the drivers; and last the controller.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from boreas_agent import __version__
from boreas_agent.api import ApiSettings, create_app, listen
from boreas_agent.clock import Clock, SystemClock
from boreas_agent.controller import Controller
from boreas_agent.drivers.base import Driver
from boreas_agent.drivers.docker import DockerDriver
from boreas_agent.drivers.process import ProcessDriver
from boreas_agent.errors import CannotRecord
from boreas_agent.model import Event
from boreas_agent.prober import Prober
from boreas_agent.probing import Defaults
from boreas_agent.reconciler import Reconciler
from boreas_agent.settings import Settings
from boreas_agent.store.store import Store
from boreas_agent.store.values import HistoryLimits
from boreas_agent.workdir import WorkDir

log = logging.getLogger(__name__)

SWITCH_SECONDS = 0.0005
"""How long a thread may keep the interpreter from another: the writer's answers wait for it on the way to the client."""
DRAIN_SECONDS = 5.0
STOP_SECONDS = 20.0


def run(settings: Settings) -> int:
    """Run the agent until SIGTERM or SIGINT; the exit status. Raises StartupError."""
    sys.setswitchinterval(SWITCH_SECONDS)
    with contextlib.closing(WorkDir.open(Path(settings.agent.work_dir))) as work_dir:
        return asyncio.run(_run(settings, work_dir, SystemClock()))


async def _run(settings: Settings, work_dir: WorkDir, clock: Clock) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    serving = asyncio.create_task(_serve(settings, work_dir, clock, stop))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    done, _ = await asyncio.wait({serving}, timeout=STOP_SECONDS)
    if not done:  # it hangs in its start or its end; apps do not mind
        serving.cancel()
    try:
        return await serving
    except asyncio.CancelledError:
        log.warning("the agent was stopped before it had come to an end by itself")
        return 0


async def _serve(settings: Settings, work_dir: WorkDir, clock: Clock, stop: asyncio.Event) -> int:
    async with _agent(settings, work_dir, clock) as controlling:
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({stopping, controlling}, return_when=asyncio.FIRST_COMPLETED)
        if not stop.is_set():
            log.critical("the controller ended; the agent stops to be started anew", exc_info=controlling.exception())
            stopping.cancel()
            return 1
        log.info("agent stopping, apps go on running")
    return 0


@asynccontextmanager
async def _agent(settings: Settings, work_dir: WorkDir, clock: Clock) -> AsyncIterator[asyncio.Task[None]]:
    """Everything that runs, for as long as the block lasts; yields the controller's task, which must not end before."""
    async with AsyncExitStack() as stack:
        history = settings.agent.history
        store = await Store.open(work_dir.database, clock, HistoryLimits(rows=history.rows, days=history.days))
        stack.push_async_callback(store.close)
        drivers = _drivers(settings, work_dir, clock)
        health = settings.agent.health
        defaults = Defaults(health.check_interval, health.timeout, health.retry_count)
        prober = Prober(drivers, defaults, clock, random.random)
        reconciler = Reconciler(store, drivers, clock, lambda: random.uniform(-1, 1), prober)  # noqa: S311  # jitter, not a secret
        controller = Controller(reconciler, store, (*drivers, prober), clock, settings.agent.resync_interval)
        api = create_app(store, controller.requested, lambda: controller.ready, ApiSettings(settings.server.trusted_networks))
        host, port = await stack.enter_async_context(listen(api, settings.server.host, settings.server.port))
        await _note(store, "AgentStarted", f"boreas-agent {__version__} started with pid {os.getpid()}")
        stack.push_async_callback(_note, store, "AgentStopped", f"boreas-agent {__version__} stopped; apps go on running")
        for driver in drivers:
            await driver.open()
            stack.push_async_callback(driver.close)
        stack.push_async_callback(prober.close)
        controlling = await stack.enter_async_context(_running(controller))
        log.info("agent started", extra={"version": __version__, "work_dir": str(work_dir.path), "host": host, "port": port})
        yield controlling


def _drivers(settings: Settings, work_dir: WorkDir, clock: Clock) -> tuple[Driver, ...]:
    docker = settings.agent.docker
    return (
        ProcessDriver(work_dir.path, work_dir.identity, clock),
        DockerDriver(
            docker.socket_path,
            work_dir.identity,
            clock,
            enabled=docker.enabled,
            registry=docker.registry,
            network_mode=docker.network_mode,
        ),
    )


@asynccontextmanager
async def _running(controller: Controller) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(controller.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task}, timeout=DRAIN_SECONDS)


async def _note(store: Store, kind: str, message: str) -> None:
    """An event of the node itself; a database that cannot take it is no reason not to start or stop."""
    try:
        await store.record_events([Event(kind, message)])
    except CannotRecord as error:
        log.warning("cannot record an event of the agent itself", extra={"kind": kind, "error": str(error)})
