"""Short calls to the engine through the synchronous SDK, each in a thread of its own, all of them bounded.

A call that hangs costs one thread until its socket times out. So that one app's hanging calls never hold
up another's, an app gets only a share of the threads; a place is given back when the thread really ends, not when the
caller stops waiting. Reads and changes have separate lanes: status stays fresh while many containers start.
Threads are daemons, so a stuck engine never keeps the agent from exiting. A client (one HTTP session)
is used by one thread at a time and kept for the next call.
"""

from __future__ import annotations

import asyncio
import errno
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.client import HTTPException
from typing import Any, TypeAlias, TypeVar

from boreas_agent.errors import Transient, Unavailable
from boreas_agent.gate import Gate

T = TypeVar("T")
Client: TypeAlias = Any
"""``docker.APIClient``, whose methods are hardly typed; what they return is checked where it is used."""

_KEPT_CLIENTS = 8
_SHUTTING_DOWN = ("context canceled", "client connection is closing", "transport is closing", "containerd.sock", "daemon is shutting down")
"""The engine has no status code for 'I am going away': it is a 500 with one of these."""


class Refused(Transient):
    """The engine answered with an error; ``status`` is the HTTP status, ``explanation`` its own words."""

    def __init__(self, what: str, status: int, explanation: str) -> None:
        self.status = status
        self.explanation = explanation
        super().__init__(f"cannot {what}: {explanation}")


class Hung(Unavailable):
    """The engine took the call and did not answer in time; whether it had an effect is unknown."""


class Lane:
    """At most ``size`` threads at once, at most ``share`` of them for one app; others queue, first come first served."""

    def __init__(self, name: str, size: int, share: int) -> None:
        self._name = name
        self._gate = Gate(size, share)

    async def run(self, app: str, call: Callable[[], T], deadline: float) -> T:
        """The result of ``call()``; raises TimeoutError where it takes longer than ``deadline`` once it has begun.

        The wait for a place is bounded because every call that has one ends with its socket's timeout.
        """
        await self._gate.enter(app)
        future = self._spawn(app, call)
        async with asyncio.timeout(deadline):
            return await future

    def _spawn(self, app: str, call: Callable[[], T]) -> asyncio.Future[T]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def finish(outcome: Callable[[asyncio.Future[T]], None]) -> None:
            self._gate.leave(app)
            if not future.done():
                outcome(future)

        def work() -> None:
            outcome = _outcome(call)
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(finish, outcome)

        try:
            threading.Thread(target=work, name=f"docker-{self._name}", daemon=True).start()
        except RuntimeError as error:
            self._gate.leave(app)
            raise Unavailable(f"cannot call Docker: {error}") from error
        return future


def _outcome(call: Callable[[], T]) -> Callable[[asyncio.Future[T]], None]:
    """Run ``call`` here; what it led to is delivered to a future elsewhere."""
    try:
        result = call()
    except Exception as error:  # noqa: BLE001  # handed to the one who waits
        failure = error
        return lambda future: future.set_exception(failure)
    return lambda future: future.set_result(result)


class DockerApi:
    """The engine behind one socket. Connects when first asked, and again after it was away.

    ``timeout``: seconds a read may take; a change (create, start, kill, remove) may take four times that, as a
    busy engine takes its time for them.
    """

    def __init__(self, socket_path: str, *, timeout: float = 15.0) -> None:
        self.socket_path = socket_path
        self.timeout = timeout
        self._reads = Lane("read", size=16, share=4)
        self._changes = Lane("change", size=12, share=3)
        self._lock = threading.Lock()
        self._idle: list[Client] = []
        self._generation = 0
        self._version: str | None = None

    async def read(self, app: str, what: str, call: Callable[[Client], T], *, timeout: float | None = None) -> T:
        """Ask something. ``what`` completes "cannot …". Raises Refused (status below 500) or Unavailable."""
        try:
            return await self._call(self._reads, app, what, call, timeout or self.timeout)
        except Refused as error:
            if error.status >= 500:
                raise Unavailable(str(error)) from error
            raise

    async def change(self, app: str, what: str, call: Callable[[Client], T]) -> T:
        """Change something. Raises Refused, Transient where no answer came in time, Unavailable where the engine is away."""
        try:
            return await self._call(self._changes, app, what, call, self.timeout * 4)
        except Hung as error:
            raise Transient(str(error)) from error
        except Refused as error:
            if error.status == 503 or any(words in error.explanation for words in _SHUTTING_DOWN):
                raise Unavailable(str(error)) from error
            raise

    async def version(self) -> str:
        """The API version spoken with this engine, negotiated where that has not happened yet."""
        return self._version or str(await self.read("", "ask for the API version", lambda client: client.api_version))

    def forget(self) -> None:
        """The engine was away and may come back as another version: negotiate anew."""
        with self._lock:
            self._generation += 1
            self._version = None
            idle, self._idle = self._idle, []
        for client in idle:
            client.close()

    async def _call(self, lane: Lane, app: str, what: str, call: Callable[[Client], T], timeout: float) -> T:
        self._reach()
        try:
            return await lane.run(app, lambda: self._attempt(what, call, timeout), timeout * 1.5)
        except TimeoutError:
            raise Hung(self._no_answer(what, timeout)) from None

    def _attempt(self, what: str, call: Callable[[Client], T], timeout: float) -> T:
        """In a thread: borrow a client, call, give it back; one that failed on the way is thrown away."""
        generation, client = self._generation, None
        try:
            client = self._borrow(timeout)
            result = call(client)
        except Exception as error:
            translated = self._translated(error, what, timeout)
            if client is not None:
                self._give_back(client, generation if isinstance(translated, Refused) else -1)
            if translated is None:
                raise
            raise translated from error
        self._give_back(client, generation)
        return result

    def _reach(self) -> None:
        """Raises Unavailable where nobody listens; without a thread or a wait, for an engine that is away is asked again and again."""
        try:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.setblocking(False)
                probe.connect(self.socket_path)
        except BlockingIOError:
            return  # busy, so there is somebody
        except OSError as error:
            raise unreachable(self.socket_path, [error]) from error

    def _borrow(self, timeout: float) -> Client:
        from docker import APIClient  # noqa: PLC0415  # 15 MB that an agent without Docker does without

        with self._lock:
            client, version = self._idle.pop() if self._idle else None, self._version
        if client is None:
            connect: Callable[..., Client] = APIClient
            client = connect(f"unix://{self.socket_path}", version=version or "auto", timeout=timeout)
            self._version = client.api_version
        client.timeout = timeout
        return client

    def _give_back(self, client: Client, generation: int) -> None:
        with self._lock:
            if generation == self._generation and len(self._idle) < _KEPT_CLIENTS:
                self._idle.append(client)
                return
        client.close()

    def _translated(self, error: Exception, what: str, timeout: float) -> Transient | None:
        """The error in our words; None for one that is none of the engine's (a bug of ours)."""
        from docker.errors import APIError, DockerException  # noqa: PLC0415
        from requests.exceptions import RequestException, Timeout  # noqa: PLC0415
        from urllib3.exceptions import HTTPError  # noqa: PLC0415

        if not isinstance(error, DockerException | RequestException | HTTPError | HTTPException | OSError):
            return None
        if isinstance(error, APIError) and error.status_code is not None:
            return Refused(what, error.status_code, _one_line(error.explanation or str(error)))
        chain = list(_causes(error))
        if any(isinstance(link, Timeout | TimeoutError) for link in chain):
            return Hung(self._no_answer(what, timeout))
        return unreachable(self.socket_path, chain)

    def _no_answer(self, what: str, timeout: float) -> str:
        return f"cannot {what}: Docker at {self.socket_path} did not answer within {timeout:g} s"


def unreachable(socket_path: str, chain: list[BaseException]) -> Unavailable:
    """The sentence for an engine that cannot be reached, from the errors that led there."""
    reasons = {
        errno.ENOENT: "no such file; is the engine running?",
        errno.ECONNREFUSED: "connection refused; is the engine running?",
        errno.EACCES: "permission denied; run the agent as root or as a member of the socket's group",
    }
    for link in chain:
        if isinstance(link, OSError) and link.errno in reasons:
            return Unavailable(f"cannot reach Docker at {socket_path}: {reasons[link.errno]}")
    return Unavailable(f"cannot reach Docker at {socket_path}: {_one_line(str(chain[-1]) or type(chain[-1]).__name__)}")


def refused(what: str, status: int, body: bytes) -> Refused:
    """The error in an HTTP answer that was read without the SDK."""
    text = body.decode("utf-8", errors="replace")
    with suppress(ValueError, KeyError, TypeError):
        text = str(json.loads(text)["message"])
    return Refused(what, status, _one_line(text))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what caused it; the SDK's libraries put causes into ``args`` and ``reason`` as well."""
    seen: set[int] = set()
    waiting: list[Any] = [error]
    while waiting:
        link = waiting.pop(0)
        if not isinstance(link, BaseException) or id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        waiting += [link.__cause__, link.__context__, getattr(link, "reason", None), *link.args]


def _one_line(text: str) -> str:
    return " ".join(text.split())
