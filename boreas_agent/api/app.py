"""The application: routes, and the one middleware around all of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from msgspec import Struct, field

from boreas_agent.api.access import PEERS, READING, Network, Peer, Peers, check_caller, check_change
from boreas_agent.api.handlers import Handlers, OpenOutput
from boreas_agent.api.incoming import MAX_BODY, expect
from boreas_agent.api.metrics import Measures
from boreas_agent.api.problems import answer
from boreas_agent.api.render import Surroundings
from boreas_agent.api.security import Security
from boreas_agent.spec import Submission
from boreas_agent.store.values import Preview

if TYPE_CHECKING:
    from boreas_agent.store.store import Store


class ApiSettings(Struct, frozen=True):
    """What the API needs to know of the configuration: from where changes are accepted, and whom it knows."""

    trusted_networks: tuple[Network, ...]
    security: Security = field(default_factory=Security)


def create_app(  # noqa: PLR0913, PLR0917  the seams to the rest of the agent
    store: Store,
    reconciler_wake: Callable[[str], None],
    ready: Callable[[], bool],
    settings: ApiSettings,
    preview: Callable[[Submission, str], Awaitable[Preview]],
    output: OpenOutput,
    around: Callable[[], Surroundings | None] = lambda: None,
    measures: Measures = tuple,
) -> web.Application:
    """The API of an agent; ``reconciler_wake`` is told of every app whose desired state was changed, after the commit.

    ``preview`` tells what an apply would cause, ``output`` what an app wrote; ``around`` is what status says of the machine
    itself, and ``measures`` what the parts of the agent know of themselves.
    """
    look = Peers(settings.trusted_networks)
    handlers = Handlers(store, reconciler_wake, ready, look, preview, output, around, measures)
    app = web.Application(middlewares=[_guard(look, settings.security)], client_max_size=MAX_BODY)
    app[PEERS] = look
    for method, path, handler in _routes(handlers):
        app.router.add_route(method, path, handler, expect_handler=expect)
        if method == "GET":
            app.router.add_route("HEAD", path, handler, expect_handler=expect)
    app.on_shutdown.append(handlers.close)
    return app


def _routes(to: Handlers) -> tuple[tuple[str, str, Handler], ...]:
    return (
        ("POST", "/v1/apply", to.apply),
        ("POST", "/v1/plan", to.plan),
        ("GET", "/v1/status", to.status),
        ("GET", "/v1/status/{app}", to.app_status),
        ("GET", "/v1/health", to.health),
        ("GET", "/v1/ready", to.readiness),
        ("GET", "/v1/events", to.events),
        ("GET", "/metrics", to.metrics),
        ("GET", "/openapi.json", to.openapi),
        ("POST", "/v1/drain", to.drain),
        ("POST", "/v1/undrain", to.undrain),
        ("DELETE", "/v1/apps/{app}", to.remove),
        ("POST", "/v1/apps/{app}/restart", to.restart),
        ("POST", "/v1/apps/{app}/rollback", to.rollback),
        ("POST", "/v1/apps/{app}/hold", to.hold),
        ("POST", "/v1/apps/{app}/release", to.release),
        ("GET", "/v1/apps/{app}/revisions", to.revisions),
        ("GET", "/v1/apps/{app}/deployments", to.deployments),
        ("GET", "/v1/apps/{app}/logs", to.logs),
    )


def _guard(look: Callable[[str | None], Peer], security: Security) -> Middleware:
    """One layer for both, because each costs every request a few microseconds: access first, then errors to answers."""
    closed = security.certificates or security.tokens is not None

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            if closed:
                check_caller(request, security)
            # A path or method that does not exist changes nothing: saying so helps more than 403 or 415.
            if request.method not in READING and request.match_info.http_exception is None:
                check_change(request, look(request.remote))
            return await handler(request)
        except Exception as error:  # noqa: BLE001  # the last line: whatever it is, the answer is problem+json
            return answer(request, error)

    return guard
