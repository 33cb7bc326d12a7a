"""The composition root: builds the parts, starts them in order, stops them in reverse.

Stopping the agent stops no app. Order at start: the lock, so that nothing below is shared with another agent; the
database; the port, so that an agent that cannot serve touches nothing (what is applied from here on is recorded);
the drivers; and last the controller.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import logging
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from msgspec import Struct
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily

from boreas_agent import __version__
from boreas_agent.api import ApiSettings, Security, create_app, listen
from boreas_agent.api.access import PEERS
from boreas_agent.api.metrics import Measures
from boreas_agent.api.render import node_status
from boreas_agent.artifacts.limits import Limits
from boreas_agent.clock import Clock, SystemClock
from boreas_agent.controller import Controller
from boreas_agent.drivers.docker import DockerDriver
from boreas_agent.drivers.process import ProcessDriver
from boreas_agent.errors import CannotRecord, Unavailable
from boreas_agent.housekeeping import Housekeeping
from boreas_agent.image_gc import Policy
from boreas_agent.model import Event
from boreas_agent.output import Outputs
from boreas_agent.preview import Previewer
from boreas_agent.prober import Prober
from boreas_agent.probing import Defaults
from boreas_agent.reconciler import Reconciler
from boreas_agent.reload import Apply, Reloading
from boreas_agent.settings import Artifacts, Log, Settings
from boreas_agent.store.store import Store
from boreas_agent.store.values import HistoryLimits
from boreas_agent.surroundings import Outlook
from boreas_agent.systemd import Supervisor, supervisor
from boreas_agent.workdir import WorkDir

log = logging.getLogger(__name__)

SWITCH_SECONDS = 0.0001
"""How long a thread may keep the interpreter from another: the writer's answers wait for it on the way to the client."""
COLLECT_AFTER = 10_000
"""New objects after which the youngest are searched for garbage; Python's own 700 is less than a burst of requests needs."""
DRAIN_SECONDS = 5.0
STOP_SECONDS = 20.0
OWN_SECONDS = 60.0


def run(settings: Settings, reread: Callable[[], Settings] | None = None, relog: Callable[[Log], None] = lambda _: None) -> int:
    """Run the agent until SIGTERM or SIGINT; the exit status. Raises StartupError.

    At SIGHUP ``reread`` gives the settings as they are written now, and ``relog`` changes how logs are written.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    _collect_rarely()
    security = Security.open(settings.server)  # before anything is touched
    told = supervisor()
    if told.watchdog is not None:
        faulthandler.enable()  # where it hung, in the journal, when the watchdog ends it
    with contextlib.closing(WorkDir.open(Path(settings.agent.work_dir))) as work_dir:
        return asyncio.run(_run(_Start(settings, security, work_dir, SystemClock(), told, reread or (lambda: settings), relog)))


def _collect_rarely() -> None:
    """What was imported stays for good, and a burst of requests makes little garbage: looking for it must not hold up answers."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)


class _Start(Struct, frozen=True):
    """What an agent is started with."""

    settings: Settings
    security: Security
    work_dir: WorkDir
    clock: Clock
    supervisor: Supervisor
    reread: Callable[[], Settings]
    relog: Callable[[Log], None]


class _Agent(Struct, frozen=True):
    """What runs; ``controlling`` must not end before the rest. ``live``: what a changed configuration reaches."""

    store: Store
    controller: Controller
    controlling: asyncio.Task[None]
    docker: DockerDriver
    housekeeping: Housekeeping
    address: str
    live: Mapping[str, Apply]

    def status(self) -> str:
        """One line for people."""
        apps = node_status(self.store.heads)["healthy"]["msg"]
        drained = "; the node is drained" if self.store.drained else ""
        return f"{apps}; listening on {self.address}{drained}"


async def _run(start: _Start) -> int:
    stop, hangup = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, hangup.set)
    serving = asyncio.create_task(_serve(start, stop, hangup))
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


async def _serve(start: _Start, stop: asyncio.Event, hangup: asyncio.Event) -> int:
    async with (
        _agent(start) as agent,
        _beside(_announce(start, agent), _hear_hangups(start, agent, hangup), _look_at_own(agent), agent.housekeeping.run()),
    ):
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({stopping, agent.controlling}, return_when=asyncio.FIRST_COMPLETED)
        if not stop.is_set():
            log.critical("the controller ended; the agent stops to be started anew", exc_info=agent.controlling.exception())
            stopping.cancel()
            return 1
        start.supervisor.stopping()
        log.info("agent stopping, apps go on running")
    return 0


@asynccontextmanager
async def _agent(start: _Start) -> AsyncIterator[_Agent]:
    """Everything that runs, for as long as the block lasts."""
    settings, work_dir, clock = start.settings, start.work_dir, start.clock
    async with AsyncExitStack() as stack:
        history = settings.agent.history
        store = await Store.open(work_dir.database, clock, HistoryLimits(rows=history.rows, days=history.days))
        stack.push_async_callback(store.close)
        drivers = _drivers(settings, work_dir, clock)
        health = settings.agent.health
        defaults = Defaults(health.check_interval, health.timeout, health.retry_count)
        prober = Prober(drivers, defaults, clock, random.random)
        reconciler = Reconciler(store, drivers, clock, lambda: random.uniform(-1, 1), prober)  # noqa: S311  # jitter, not a secret
        outlook = Outlook(settings, work_dir, drivers[1].link, store.record_events, clock, populated=drivers)
        controller = Controller(reconciler, store, (*drivers, prober, reconciler.turns), clock, settings.agent.resync_interval)
        await outlook.look()
        callers = ApiSettings(settings.server.trusted_networks, start.security)
        preview, output, measures = (
            Previewer(store, drivers, clock).preview,
            Outputs(store, drivers).open,
            _measures(controller, drivers[0]),
        )
        api = create_app(store, controller.requested, lambda: controller.ready, callers, preview, output, outlook, measures)
        host, port = await stack.enter_async_context(listen(api, settings.server.host, settings.server.port, start.security))
        await _note(store, "AgentStarted", f"boreas-agent {__version__} started with pid {os.getpid()}")
        stack.push_async_callback(_note, store, "AgentStopped", f"boreas-agent {__version__} stopped; apps go on running")
        for driver in drivers:
            await driver.open()
            stack.push_async_callback(driver.close)
        stack.push_async_callback(prober.close)
        controlling = await stack.enter_async_context(_running(controller))
        stack.callback(drivers[0].leave)
        await stack.enter_async_context(outlook.watching())
        log.info("agent started", extra={"version": __version__, "work_dir": str(work_dir.path), "host": host, "port": port})
        live: Mapping[str, Apply] = {
            "log.level": lambda new: start.relog(new.log),
            "log.format": lambda new: start.relog(new.log),
            "server.trusted_networks": lambda new: api[PEERS].trust(new.server.trusted_networks),
            "agent.resync_interval": lambda new: controller.resync_every(new.agent.resync_interval),
        }
        housekeeping = _housekeeping(settings, store, drivers[1], clock)
        yield _Agent(store, controller, controlling, drivers[1], housekeeping, f"{host}:{port}", live)


def _measures(controller: Controller, processes: ProcessDriver) -> Measures:
    def measures() -> Iterator[Metric]:
        yield from controller.measures()
        yield GaugeMetricFamily("boreas_keeper_up", "1 while the parent of processes is there.", value=processes.keeper_up)

    return measures


async def _announce(start: _Start, agent: _Agent) -> None:
    """To the service manager: ready after the first pass, then how it is and that it lives."""
    await agent.controller.until_ready()
    start.supervisor.ready(agent.status())
    await start.supervisor.keep_telling(agent.status, agent.store.answers)


async def _hear_hangups(start: _Start, agent: _Agent, hangup: asyncio.Event) -> None:
    """SIGHUP: read the configuration again."""
    reloading = Reloading(start.settings, start.reread, agent.live)
    while True:
        await hangup.wait()
        hangup.clear()
        start.supervisor.reloading()
        await start.security.reload()
        outcome = await reloading.reload()
        await _note(agent.store, "Reloaded" if outcome.ok else "ReloadFailed", outcome.message)
        start.supervisor.ready(outcome.message)


async def _look_at_own(agent: _Agent) -> None:
    """An agent in a container that nobody starts again is a node that stays dark after a reboot: say so, once."""
    while True:
        try:
            fault = await agent.docker.stays_away()
        except Unavailable:
            await asyncio.sleep(OWN_SECONDS)
            continue
        if fault:
            log.warning(fault)
            await _note(agent.store, "NoRestartPolicy", fault)
        return


def _drivers(settings: Settings, work_dir: WorkDir, clock: Clock) -> tuple[ProcessDriver, DockerDriver]:
    docker = settings.agent.docker
    return (
        ProcessDriver(
            work_dir.path,
            work_dir.identity,
            clock,
            limits=_limits(settings.agent.artifacts),
            require_cgroups=settings.agent.process.require_cgroups,
        ),
        DockerDriver(
            docker.socket_path,
            work_dir.identity,
            clock,
            enabled=docker.enabled,
            registry=docker.registry,
            network_mode=docker.network_mode,
            auth_file=docker.auth_file,
            work_dir=work_dir.path,
            stall=docker.pull_stall_timeout,
        ),
    )


def _housekeeping(settings: Settings, store: Store, docker: DockerDriver, clock: Clock) -> Housekeeping:
    told = settings.agent.docker.image_gc
    policy = Policy(told.min_age, told.max_age, told.high_threshold_percent, told.low_threshold_percent)
    return Housekeeping(store, docker, clock, told.interval, policy if told.enabled else None)


def _limits(artifacts: Artifacts) -> Limits:
    return Limits(
        file_roots=artifacts.file_roots,
        header_roots=artifacts.header_roots,
        max_bytes=artifacts.max_bytes,
        max_unpacked_bytes=artifacts.max_unpacked_bytes,
        min_free_bytes=artifacts.min_free_bytes,
        cache_bytes=artifacts.cache_bytes,
        seconds=artifacts.timeout,
    )


@asynccontextmanager
async def _beside(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run ``work`` until the block ends. Nothing else depends on it: what fails in it is logged."""
    tasks = [asyncio.create_task(one) for one in work]
    for task in tasks:
        task.add_done_callback(_tell_failure)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=DRAIN_SECONDS)


def _tell_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("a part of the agent failed that the others do without", exc_info=error)


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
