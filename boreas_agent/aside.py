"""Blocking calls that may never come back, out of everybody's way.

A name server that does not answer or a network file system that is gone can hold a thread for minutes. In a shared pool
it would take a place from others, and at the end the interpreter would wait for it; a daemon thread of its own costs
nothing but itself.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


class Aside:
    """At most one thread at a time: while a call hangs, further ones are refused at once."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._busy = False

    async def run(self, call: Callable[[], T], seconds: float) -> T:
        """The result of ``call()``, or what it raises; TimeoutError after ``seconds``, and while an earlier call still hangs."""
        if self._busy:
            raise TimeoutError(f"an earlier call of {self._name} still hangs")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        threading.Thread(target=self._work, args=(call, future), name=self._name, daemon=True).start()
        self._busy = True
        async with asyncio.timeout(seconds):
            return await future

    def _work(self, call: Callable[[], T], future: asyncio.Future[T]) -> None:
        result: T | None = None
        failure: Exception | None = None
        try:
            result = call()
        except Exception as error:  # noqa: BLE001  # handed to the one who waits
            failure = error

        def finish() -> None:
            self._busy = False
            if future.done():  # nobody waits any more
                return
            if failure is not None:
                future.set_exception(failure)
            else:
                future.set_result(result)  # type: ignore[arg-type]

        with suppress(RuntimeError):  # the loop is closed
            future.get_loop().call_soon_threadsafe(finish)
