"""What the tests of the store share: a store on a real file, and something to submit."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

from boreas_agent.clock import Clock
from boreas_agent.model import Health, Status
from boreas_agent.spec import Submission, parse_submission
from boreas_agent.store.store import Store
from boreas_agent.store.values import HistoryLimits, Outcome
from tests.world import FakeClock

BY = "api 127.0.0.1"
RUNNING = Health(100, Status.RUNNING, "Running")


def submission(app: str = "web", version: str = "v1", force: bool = False, **pkg: Any) -> Submission:
    """A valid apply request."""
    pkg = {"type": "docker", "image": f"registry.local/{app}:{version}"} | pkg
    return parse_submission({"app": app, "version": version, "force": force, "pkg": pkg})


@asynccontextmanager
async def opened(path: Path, clock: Clock | None = None, limits: HistoryLimits | None = None) -> AsyncIterator[Store]:
    """The store of ``path/agent.db``; closed at the end."""
    store = await Store.open(path / "agent.db", clock or FakeClock(), limits or HistoryLimits())
    try:
        yield store
    finally:
        await store.close()


def outcome(store: Store, app: str = "web", health: Health = RUNNING, **more: Any) -> Outcome:
    """A pass that found the app's head as ``health`` says."""
    head = store.heads[app]
    kept = {"attempts": head.attempts, "proven": head.proven, "unknown_since": head.unknown_since, "homes": head.homes}
    return Outcome(app, head.revision.revision, health, **kept | more)


async def proven(store: Store, app: str = "web") -> None:
    """Let the head be wholly healthy."""
    await store.record(outcome(store, app, proven=store.heads[app].revision.instance_hash))


async def kinds(store: Store, app: str | None = "web") -> list[str]:
    """The kinds of the recorded events, oldest first."""
    return [event["kind"] for event in await store.events(app)]


def sql(path: Path, query: str, *values: object) -> list[tuple[Any, ...]]:
    """What somebody reads from outside."""
    with closing(sqlite3.connect(f"file:{path / 'agent.db'}?mode=ro", uri=True)) as connection:
        return connection.execute(query, values).fetchall()
