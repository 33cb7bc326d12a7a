"""The endpoints: each parses, calls the store, wakes the reconciler and renders; nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING

from aiohttp import web
from msgspec import Struct, field

from boreas_agent.api import events, metrics, openapi, render
from boreas_agent.api.access import Peer, signed
from boreas_agent.api.incoming import (
    DrainRequest,
    HoldRequest,
    NoOptions,
    RollbackRequest,
    app_name,
    flag,
    json_body,
    options,
    output_query,
    wait_seconds,
    whole_number,
)
from boreas_agent.api.problems import problem
from boreas_agent.api.streaming import stream
from boreas_agent.api.waiting import until_settled
from boreas_agent.errors import CannotRecord, NotFound
from boreas_agent.model import OutputLine, OutputQuery
from boreas_agent.spec import Submission, parse_submission
from boreas_agent.store.values import Preview, Receipt

if TYPE_CHECKING:
    from boreas_agent.store.store import Store

SERVICE = "operator-pm-agent"
OpenOutput = Callable[[str, OutputQuery], Awaitable[AsyncGenerator[Sequence[OutputLine], None]]]
"""What an app wrote, in batches. Raises NotFound, Unavailable, Conflict."""


class Handlers(Struct, frozen=True):
    """All endpoints and what they need."""

    store: Store
    wake: Callable[[str], None]
    ready: Callable[[], bool]
    peer: Callable[[str | None], Peer]
    preview: Callable[[Submission, str], Awaitable[Preview]]
    output: OpenOutput
    around: Callable[[], render.Surroundings | None] = lambda: None
    measures: metrics.Measures = tuple
    readers: events.Readers = field(default_factory=events.Readers)
    closing: asyncio.Event = field(default_factory=asyncio.Event)  # the agent is stopping: hold no answer back

    # --- desired state ---------------------------------------------------------------------------

    async def apply(self, request: web.Request) -> web.Response:
        wait = wait_seconds(request)
        submission = parse_submission(await json_body(request))
        receipt = await self.store.apply(submission, self._by(request))
        return await self._recorded(request, receipt, wait)

    async def remove(self, request: web.Request) -> web.Response:
        app, wait = app_name(request), wait_seconds(request)
        await options(request, NoOptions)
        receipt = await self.store.remove(app, self._by(request))
        return await self._recorded(request, receipt, wait)

    async def restart(self, request: web.Request) -> web.Response:
        app, wait = app_name(request), wait_seconds(request)
        await options(request, NoOptions)
        receipt = await self.store.restart(app, self._by(request))
        return await self._recorded(request, receipt, wait)

    async def rollback(self, request: web.Request) -> web.Response:
        app, wait = app_name(request), wait_seconds(request)
        asked = await options(request, RollbackRequest)
        receipt = await self.store.rollback(app, asked.to, self._by(request))
        return await self._recorded(request, receipt, wait)

    async def plan(self, request: web.Request) -> web.Response:
        submission = parse_submission(await json_body(request))
        return render.ok(render.preview(await self.preview(submission, self._by(request))))

    async def hold(self, request: web.Request) -> web.Response:
        app = app_name(request)
        asked = await options(request, HoldRequest)
        receipt = await self.store.hold(app, self._by(request), asked.reason or "", asked.seconds)
        return await self._recorded(request, receipt, None)

    async def release(self, request: web.Request) -> web.Response:
        app = app_name(request)
        await options(request, NoOptions)
        receipt = await self.store.release(app, self._by(request))
        return await self._recorded(request, receipt, None)

    async def drain(self, request: web.Request) -> web.Response:
        asked = await options(request, DrainRequest)
        return self._node(await self.store.drain(self._by(request), asked.reason or ""))

    async def undrain(self, request: web.Request) -> web.Response:
        await options(request, NoOptions)
        return self._node(await self.store.undrain(self._by(request)))

    def _node(self, changed: bool) -> web.Response:
        if changed:
            for app in self.store.heads:
                self.wake(app)
        return render.ok(render.drain_receipt(self.store.drained, changed))

    # --- how it is -------------------------------------------------------------------------------

    async def status(self, _request: web.Request) -> web.Response:
        return render.ok(render.node_status(self.store.heads, self.around()) | {"drained": render.drained(self.store.drained)})

    async def app_status(self, request: web.Request) -> web.Response:
        name = app_name(request)
        head = self.store.head(name)
        if head is None:
            raise NotFound(f"there is no app named {name!r}")
        return render.ok(render.app_status(head, self.around()))

    async def revisions(self, request: web.Request) -> web.Response:
        name = app_name(request)
        limit = whole_number(request, "limit", default=50, most=500) or 50
        before = whole_number(request, "before", default=None, most=2**62)
        rows = await self.store.revisions(name, limit, before)
        if not rows and await self.store.newest(name) == 0:
            raise NotFound(f"there is and was no app named {name!r}")
        return render.ok(render.revisions(name, rows, limit))

    async def deployments(self, request: web.Request) -> web.Response:
        name = app_name(request)
        limit = whole_number(request, "limit", default=50, most=500) or 50
        before = whole_number(request, "before", default=None, most=2**62)
        rows = await self.store.deployments(name, limit, before)
        if not rows and await self.store.newest(name) == 0:
            raise NotFound(f"there is and was no app named {name!r}")
        return render.ok(render.deployments(name, rows, limit))

    async def events(self, request: web.Request) -> web.StreamResponse:
        of = events.wanted(request)
        if not of.follow:
            return render.ok(render.events(await self.store.events(of.app, of.after, of.limit), of.after))
        with self.readers.one_more():
            return await events.stream(request, self.store, of, lambda: self._given_up(request))

    async def logs(self, request: web.Request) -> web.StreamResponse:
        app, query, timestamps = app_name(request), output_query(request), flag(request, "timestamps")
        batches = await self.output(app, query)
        pieces = _rendered(batches, timestamps)
        return await stream(request, "text/plain; charset=utf-8", pieces, lambda: self._given_up(request))

    async def health(self, _request: web.Request) -> web.Response:
        try:
            await self.store.check()
        except CannotRecord as error:
            return problem(503, str(error), members={"status": "unhealthy", "service": SERVICE})
        return render.ok({"status": "healthy", "service": SERVICE})

    async def metrics(self, _request: web.Request) -> web.Response:
        return await metrics.exposition(self.store, self.around(), self.measures)

    async def openapi(self, _request: web.Request) -> web.Response:
        return render.ok(openapi.document())

    async def readiness(self, _request: web.Request) -> web.Response:
        if not self.ready():
            return problem(503, "the first pass after the start has not finished yet", headers={"Retry-After": "1"})
        return render.ok({"status": "ready"})

    # --- shared ----------------------------------------------------------------------------------

    async def close(self, _app: web.Application) -> None:
        """Lets go of the answers that are held back."""
        self.closing.set()

    def _by(self, request: web.Request) -> str:
        return signed(request, self.peer(request.remote))

    async def _recorded(self, request: web.Request, receipt: Receipt, wait: float | None) -> web.Response:
        if receipt.changed:
            self.wake(receipt.app)
        answer = render.receipt(receipt)
        if wait is not None:
            await until_settled(self.store, receipt.app, receipt.revision, wait, lambda: self._given_up(request))
            answer |= render.outcome(receipt, self.store.head(receipt.app))
        return render.ok(answer)

    def _given_up(self, request: web.Request) -> bool:
        return self.closing.is_set() or request.transport is None or request.transport.is_closing()


async def _rendered(batches: AsyncGenerator[Sequence[OutputLine], None], timestamps: bool) -> AsyncGenerator[bytes, None]:
    async with aclosing(batches):
        async for batch in batches:
            yield render.output(batch, timestamps)
