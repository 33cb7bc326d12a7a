"""What waits for the writer, and the state as it will be once it has committed."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from boreas_agent.model import Head
from boreas_agent.store import codec
from boreas_agent.store.changes import Change, Known
from boreas_agent.store.codec import Row

T = TypeVar("T")
Decide = Callable[[Known, datetime], Change[T]]


@dataclass(frozen=True, slots=True)
class Request:
    """Something to decide and record. ``app`` None: it is about no app."""

    app: str | None
    decide: Decide[Any]
    future: asyncio.Future[Any]


@dataclass(frozen=True, slots=True)
class Task:
    """Upkeep with a transaction of its own, or none."""

    run: Callable[[sqlite3.Connection], Any]
    future: asyncio.Future[Any]


@dataclass(frozen=True, slots=True)
class Answer:
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


@dataclass(frozen=True, slots=True)
class Published:
    """What a commit made true: the new heads (None: gone), and the answers it allows."""

    heads: Mapping[str, Head | None]
    answers: Sequence[Answer]
    anew: bool = False
    """The file was written anew; whoever has the old one open should let go of it."""


@dataclass(slots=True)
class Draft:
    """The state as it will be if the transaction commits."""

    committed: Mapping[str, Head]
    look_up: Callable[[str], int]
    states: dict[str, Known] = field(default_factory=dict)
    rows: dict[str, list[Row]] = field(default_factory=dict)

    def decide(self, request: Request, now: datetime) -> Answer:
        """Let the request see what those before it did; one that raises has changed nothing."""
        try:
            change = request.decide(self._known(request.app), now)
        except sqlite3.Error:
            raise
        except Exception as error:  # noqa: BLE001  it belongs to whoever asked, and the thread must live on
            return Answer(request.future, error=error)
        if change.state is not None and request.app is not None:
            self.states[request.app] = change.state
        for table, row in change.rows:
            self.rows.setdefault(table, []).append(row)
        return Answer(request.future, change.answer)

    def _known(self, app: str | None) -> Known:
        if app is None:
            return 0
        known: Known | None = self.states.get(app)
        if known is None:
            known = self.committed.get(app)
        return self.look_up(app) if known is None else known

    def tables(self, now: datetime) -> Iterable[tuple[str, Sequence[Row]]]:
        """All rows to write; of each app only the last head."""
        yield from self.rows.items()
        if self.states:
            yield (
                "heads",
                [codec.head_row(s) if isinstance(s, Head) else codec.gone_row(app, s, now) for app, s in self.states.items()],
            )
