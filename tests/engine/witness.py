"""Somebody who asks the agent how an app is, and the app whether it serves, as fast as both answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from tests.engine.node import Node

LAG_SECONDS = 1.5
"""For so long what was told last may stand beside what is already otherwise."""


@dataclass(frozen=True)
class Sample:
    """What the agent said, and whether the app answered both just before and just after; None where it did only once."""

    at: float
    version: str
    level: int
    msg: str
    served: bool | None


class Witness:
    """``samples``: all that was seen, oldest first."""

    def __init__(self, node: Node, app: str, serves: Callable[[], bool]) -> None:
        self.samples: list[Sample] = []
        self._node = node
        self._app = app
        self._serves = serves
        self._over = threading.Event()

    def watch(self) -> None:
        """Until it is over."""
        before = self._serves()
        while not self._over.is_set():
            code, answer = self._node.get("/v1/status")
            after = self._serves()
            shown: dict[str, Any] = next((one for one in answer["apps"] if one["app"] == self._app), {}) if code == 200 else {}
            if shown:
                served = before if before == after else None
                healthy = shown["healthy"]
                self.samples.append(Sample(time.monotonic(), shown["version"], healthy["level"], healthy["msg"], served))
            before = after

    def end(self) -> None:
        """Look no more."""
        self._over.set()

    def of(self, version: str) -> list[Sample]:
        """What was said while this was the desired version."""
        return [one for one in self.samples if one.version == version]

    def lies(self, version: str) -> list[str]:
        """Where the level of ``version`` was, for longer than a moment, one that serves though it did not, or the other way round."""
        told = []
        for served, group in groupby(self.of(version), key=lambda one: one.served):
            if served is not None:
                told += _lies(served, list(group))
        return told


def _lies(served: bool, samples: Sequence[Sample]) -> list[str]:
    wrong = [one for one in samples if (one.level >= 50) != served and one.at - samples[0].at >= LAG_SECONDS]
    return [f"{'serving' if served else 'not serving'} for {one.at - samples[0].at:.2f} s: {one.level} {one.msg}" for one in wrong]


@contextmanager
def witness(node: Node, app: str, serves: Callable[[], bool]) -> Iterator[Witness]:
    """One that looks while the block runs."""
    seeing = Witness(node, app, serves)
    thread = threading.Thread(target=seeing.watch, daemon=True)
    thread.start()
    try:
        yield seeing
    finally:
        seeing.end()
        thread.join(20)
