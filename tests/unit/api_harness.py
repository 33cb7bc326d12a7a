"""A whole API on a free loopback port, over a real store, for tests that speak HTTP to it."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from io import BytesIO
from ipaddress import ip_network
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from aiohttp import ClientSession

from boreas_agent.api import ApiSettings, Security, create_app, listen
from boreas_agent.clock import SystemClock
from boreas_agent.model import Health, Status
from boreas_agent.output import Outputs
from boreas_agent.preview import Previewer
from boreas_agent.store.store import Store
from boreas_agent.store.values import Outcome
from tests.world import FakeClock, FakeDriver, World

LOOPBACK = ("127.0.0.0/8", "::1/128")
RUNNING = Health(100, Status.RUNNING, "Running")
SEED: dict[str, Any] = {
    "app": "my-app",
    "version": "v1.0.0",
    "pkg": {
        "type": "docker",
        "image": "my-app:v1.0.0",
        "command": ["/app/my-app"],
        "args": ["--config", "/app/config.yaml"],
        "environment": {"ENV": "production"},
        "volumes": [{"host_path": "/data", "container_path": "/app/data", "read_only": False}],
        "ports": [{"host_port": 8080, "container_port": 8080, "protocol": "tcp"}],
    },
}
"""The example of the platform's own document."""


def seed(**changes: Any) -> dict[str, Any]:
    """The seed example with other top-level fields."""
    return copy.deepcopy(SEED) | changes


def pkg(**changes: Any) -> dict[str, Any]:
    """The seed example with other fields in its pkg."""
    return seed(pkg=copy.deepcopy(SEED["pkg"]) | changes)


@dataclass(frozen=True)
class Reply:
    """An answer, read to its end."""

    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def fields(self) -> list[str]:
        return [error["field"] for error in self.json["errors"]]


@dataclass(frozen=True)
class Api:
    """The API under test, its store, and whom it woke."""

    url: str
    port: int
    store: Store
    database: Path
    session: ClientSession
    woken: list[str]
    world: World

    async def send(self, method: str, path: str, data: Any = None, headers: dict[str, str] | None = None) -> Reply:
        """``data`` is sent as it is where it is bytes, else as JSON."""
        body = data if data is None or isinstance(data, bytes) or hasattr(data, "__aiter__") else json.dumps(data).encode()
        body = BytesIO(body) if isinstance(body, bytes) else body
        sent = {"Content-Type": "application/json"} | (headers or {})
        async with self.session.request(method, self.url + path, data=body, headers={k: v for k, v in sent.items() if v}) as answer:
            return Reply(answer.status, dict(answer.headers), await answer.text())

    async def apply(self, data: Any, query: str = "") -> Reply:
        return await self.send("POST", "/v1/apply" + query, data)

    async def get(self, path: str) -> Reply:
        return await self.send("GET", path, headers={"Content-Type": ""})

    async def is_now(self, app: str, health: Health) -> None:
        """Record ``health`` as a reconcile pass would."""
        head = self.store.head(app)
        assert head is not None
        await self.store.record(Outcome(app, head.revision.revision, health))

    async def is_gone(self, app: str) -> None:
        """Record that a removal has finished."""
        head = self.store.head(app)
        assert head is not None
        await self.store.record(Outcome(app, head.revision.revision, head.health, gone=True))

    async def raw(self, request: bytes) -> bytes:
        """Everything the port answers to these very bytes until it closes the connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(request)
            return await asyncio.wait_for(reader.read(), 20)
        finally:
            writer.close()

    def everything(self) -> dict[str, Any]:
        """What is recorded, to be compared: a refused request leaves it equal."""
        return dict(self.store.heads)


@asynccontextmanager
async def serving(
    trusted: tuple[str, ...] = LOOPBACK, ready: Callable[[], bool] = lambda: True, security: Security | None = None
) -> AsyncIterator[Api]:
    """The API over a new store in a folder of its own."""
    woken: list[str] = []
    security = security or Security()
    settings = ApiSettings(tuple(ip_network(network) for network in trusted), security)
    with TemporaryDirectory() as folder:
        database = Path(folder) / "agent.db"
        store = await Store.open(database, SystemClock())
        try:
            drivers = (FakeDriver(world := World(FakeClock()), frozenset({"docker"})), FakeDriver(world, frozenset({"binary", "script"})))
            preview, output = Previewer(store, drivers, SystemClock()).preview, Outputs(store, drivers).open
            app = create_app(store, woken.append, ready, settings, preview, output)
            async with listen(app, "127.0.0.1", 0, security) as (host, port), ClientSession() as session:
                yield Api(f"{'https' if security.tls else 'http'}://{host}:{port}", port, store, database, session, woken, world)
        finally:
            await store.close()


def run(
    test: Callable[[Api], Awaitable[None]],
    trusted: tuple[str, ...] = LOOPBACK,
    ready: Callable[[], bool] = lambda: True,
    security: Security | None = None,
) -> None:
    """Run one async test against its own API."""

    async def whole() -> None:
        async with serving(trusted, ready, security) as api:
            await test(api)

    asyncio.run(whole())
