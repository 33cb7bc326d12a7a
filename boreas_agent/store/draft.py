"""What waits for the writer, and the state as it will be once it has committed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from msgspec import Struct

from boreas_agent.model import Head
from boreas_agent.store import bulk, codec
from boreas_agent.store.bulk import Values
from boreas_agent.store.changes import Change, Known, check_order
from boreas_agent.store.codec import Row
from boreas_agent.store.gone import Gone

T = TypeVar("T")
Decide = Callable[[Known, datetime], Change[T]]


class Request(Struct, frozen=True):
    """Something to decide and record. ``app`` None: it is about no app. ``newest``: of an app that was gone when it was asked."""

    app: str | None
    newest: int
    decide: Decide[Any]
    future: asyncio.Future[Any]


class Answer(Struct, frozen=True):
    future: asyncio.Future[Any]
    value: Any = None
    error: BaseException | None = None

    def give(self) -> None:
        """On the event loop; whoever asked may have left."""
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.value)


class Published(Struct, frozen=True):
    """What a commit made true: the new heads (None: gone), and the answers it allows."""

    heads: Mapping[str, Head | None]
    answers: Sequence[Answer]
    anew: bool = False
    """The file was written anew; whoever has the old one open should let go of it."""
    happened: bool = False
    """There are events among what was recorded."""


@dataclass(slots=True)
class Draft:
    """The state as it will be if the transaction commits."""

    committed: Mapping[str, Head]
    gone: Gone
    states: dict[str, Known] = field(default_factory=dict)
    rows: list[tuple[str, Row]] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        """There is nothing to write."""
        return not self.rows and not self.states

    def decide(self, request: Request, now: datetime) -> Answer:
        """Let the request see what those before it did; one that raises has changed nothing."""
        try:
            change = request.decide(self._known(request), now)
            if change.asks is not None:
                check_order(change.asks, self._head)
        except Exception as error:  # noqa: BLE001  it belongs to whoever asked
            return Answer(request.future, error=error)
        if change.state is not None and request.app is not None:
            self.states[request.app] = change.state
        self.rows += change.rows
        return Answer(request.future, change.answer)

    def _known(self, request: Request) -> Known:
        app = request.app
        if app is None:
            return 0
        known: Known | None = self.states.get(app)
        if known is None:
            known = self.committed.get(app)
        return (self.gone.newest(app) or request.newest) if known is None else known

    def _head(self, app: str) -> Head | None:
        state = self.states.get(app, self.committed.get(app))
        return state if isinstance(state, Head) else None

    def values(self, now: datetime) -> Values:
        """All rows to write; of each app only the last head."""
        heads = [
            ("heads", codec.head_row(state) if isinstance(state, Head) else codec.gone_row(app, state, now))
            for app, state in self.states.items()
        ]
        return bulk.lay_out([*self.rows, *heads])
