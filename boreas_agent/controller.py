"""Keeps reconciling: wakes apps by events, timers and a periodic resync, and gives each its own worker.

Events only make it quick: the resync alone would converge everything. Whatever one app's pass raises, it
is logged, that app comes again later, and no other app notices.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from typing import Protocol

from prometheus_client import Counter, Histogram, Metric
from prometheus_client.core import GaugeMetricFamily

from boreas_agent.clock import Clock
from boreas_agent.drivers.base import ALL_APPS
from boreas_agent.errors import BoreasError, CannotRecord
from boreas_agent.gathering import Series, after_request
from boreas_agent.model import Observed
from boreas_agent.reconciler import Reconciler
from boreas_agent.store.store import Store
from boreas_agent.workqueue import WorkQueue

log = logging.getLogger(__name__)

FIRST_PASS_SECONDS = 3.0
"""The first pass counts as finished after so long, even if some app's fetch or stop still goes on."""
PRUNE_SECONDS = 600.0
MAX_RETRY_SECONDS = 60.0
LISTEN_AGAIN_SECONDS = 5.0
_BUCKETS = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60, 300)
"""In seconds. A pass fetches and stops what it has to, so some take minutes."""


class Source(Protocol):
    """What tells of apps that need a look: drivers, probes."""

    def events(self) -> AsyncIterator[str]:
        """Names of apps, or ``ALL_APPS``. Hints only; never ends."""


class Controller:
    """Runs a reconciler over all apps until cancelled."""

    def __init__(self, reconciler: Reconciler, store: Store, sources: Sequence[Source], clock: Clock, resync_seconds: float) -> None:
        self._reconciler = reconciler
        self._store = store
        self._sources = sources
        self._clock = clock
        self._resync_seconds = resync_seconds
        self._queue = WorkQueue()
        self._look_at_all = asyncio.Event()
        self._surveyed: dict[str, Sequence[Observed]] = {}
        self._worked: set[str] = set()
        self._series: dict[str, Series] = {}
        self._failures: dict[str, int] = {}
        self._waited_for: set[str] | None = None
        self._ready = asyncio.Event()
        self._pruned = float("-inf")
        self._pass_seconds = Histogram(
            "boreas_reconcile_seconds", "How long it took to bring an app to rest.", registry=None, buckets=_BUCKETS
        )
        self._failed_passes = Counter("boreas_reconcile_failures", "Passes that ended with an error and were tried again.", registry=None)

    @property
    def ready(self) -> bool:
        """The first pass over all apps has finished."""
        return self._ready.is_set()

    def measures(self) -> Iterator[Metric]:
        """For ``GET /metrics``."""
        yield from self._pass_seconds.collect()
        yield from self._failed_passes.collect()
        queue = GaugeMetricFamily(
            "boreas_queue_apps", "Apps that wait for a pass, are in one, or are to be looked at later.", labels=["state"]
        )
        for state, count in (("waiting", self._queue.waiting), ("processing", self._queue.processing), ("delayed", self._queue.delayed)):
            queue.add_metric([state], count)
        yield queue

    async def until_ready(self) -> None:
        """Returns once it is."""
        await self._ready.wait()

    def resync_every(self, seconds: float) -> None:
        """From now on; the next look at everything is at once."""
        self._resync_seconds = seconds
        self._look_at_all.set()

    def wake(self, app: str) -> None:
        """Something about ``app`` may have changed."""
        self._surveyed.pop(app, None)
        self._queue.add(app)

    def requested(self, app: str) -> None:
        """Somebody wants something else of ``app``: the first request is looked at now, a quick series of them once in a while."""
        self._surveyed.pop(app, None)
        now = self._clock.boottime()
        series = self._series[app] = after_request(self._series.get(app), now)
        if series.looks_now(now):
            self._queue.add(app)
        else:
            self._queue.add_after(app, series.due - now)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            for source in self._sources:
                group.create_task(self._listen(source))
            group.create_task(self._resync_for_ever())
            group.create_task(self._count_as_ready_after(FIRST_PASS_SECONDS))
            self._queue.open(lambda app: group.create_task(self._work(app)))
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                self._queue.close()

    # --- one app ---------------------------------------------------------------------------------

    async def _work(self, app: str) -> None:
        began = self._clock.boottime()
        try:
            wake_at = await self._reconciler.reconcile(app, self._surveyed.pop(app, None))
            self._failures.pop(app, None)
            wakes = [at for at in (wake_at, await self._hold_ends(app)) if at is not None]
            if wakes:
                self._queue.add_after(app, min(wakes) - self._clock.boottime())
        except CannotRecord as error:
            log.warning("reconciling failed, trying again", extra={"app": app, "error": str(error)})
            self._retry(app)
        except BoreasError as error:
            log.warning("reconciling failed, trying again", extra={"app": app, "error": str(error)})
            await self._lost(app, str(error))
        except Exception as error:
            log.exception("reconciling failed unexpectedly, trying again", extra={"app": app})
            await self._lost(app, f"reconciling failed: {type(error).__name__}; the log of the agent has more")
        finally:
            self._pass_seconds.observe(self._clock.boottime() - began)
            self._worked.add(app)
            self._queue.done(app)
            self._passed(app)

    async def _hold_ends(self, app: str) -> float | None:
        """The boot second at which the app's hold ends; one that has ended is released."""
        head = self._store.head(app)
        if head is None or head.hold is None or head.hold.expires is None:
            return None
        if head.hold.expires > self._clock.boottime():
            return head.hold.expires
        await self._expire_holds()
        return None

    async def _lost(self, app: str, why: str) -> None:
        """Nobody looks after the app until the next try: that is no reason to call it well."""
        try:
            await self._reconciler.lost(app, why)
        except BoreasError as error:
            log.warning("cannot record that reconciling failed", extra={"app": app, "error": str(error)})
        self._retry(app)

    def _retry(self, app: str) -> None:
        self._failed_passes.inc()
        failures = self._failures[app] = self._failures.get(app, 0) + 1
        self._queue.add_after(app, min(MAX_RETRY_SECONDS, 2.0 ** min(failures - 1, 10)))

    # --- all apps --------------------------------------------------------------------------------

    async def _listen(self, source: Source) -> None:
        while True:
            try:
                async for app in source.events():
                    if app == ALL_APPS:
                        self._look_at_all.set()
                    else:
                        self.wake(app)
            except Exception:
                log.exception("a source of events failed, listening again; the resync sees what happens meanwhile")
            await asyncio.sleep(LISTEN_AGAIN_SECONDS)

    async def _resync_for_ever(self) -> None:
        while True:
            self._look_at_all.clear()
            try:
                await self._resync()
            except Exception:
                log.exception("resync failed, trying again at the next one")
            try:
                async with asyncio.timeout(self._resync_seconds):
                    await self._look_at_all.wait()
            except TimeoutError:
                continue

    async def _resync(self) -> None:
        """One look at everything, then every app is checked against what was seen of it."""
        await self._expire_holds()
        self._worked.clear()
        now = self._clock.boottime()
        self._series = {app: series for app, series in self._series.items() if series.matters(now)}
        looked_at: set[str] = set()
        try:
            async with aclosing(self._reconciler.homes.survey()) as survey:
                async for seen in survey:
                    for app, observed in seen.items():
                        if app not in self._worked and self._queue.idle(app):
                            self._surveyed[app] = observed
                        self._queue.add(app)
                    looked_at |= seen.keys()
        finally:  # whatever looking failed with, each app has a pass of its own
            for app in self._store.heads.keys() - looked_at:
                self._queue.add(app)
        if self._waited_for is None:
            self._waited_for = {*looked_at, *self._store.heads} - self._worked
            self._passed("")
        if self._clock.boottime() - self._pruned > PRUNE_SECONDS:
            self._pruned = self._clock.boottime()
            await self._reconciler.collect()  # first: it makes room, and pruning needs some
            await self._store.prune()

    async def _expire_holds(self) -> None:
        try:
            for app in await self._store.expire_holds():
                self.wake(app)
        except BoreasError as error:  # the apps that nobody holds must not wait for it
            log.warning("cannot release what is held no longer", extra={"error": str(error)})

    def _passed(self, app: str) -> None:
        if self._waited_for is not None:
            self._waited_for.discard(app)
            if not self._waited_for:
                self._ready.set()

    async def _count_as_ready_after(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._ready.wait()
        except TimeoutError:
            self._ready.set()
