"""The agent's end of the keepers: finds them, starts one where none answers, asks for runs, hears of exits.

A keeper belongs to the version of its source. The agent asks its own version's for runs and listens to all: an
older one still watches what it started, and ends with the last of it. Asking twice, or two keepers, is harmless
(see ``boreas_agent.keeper``: a run is claimed once), so whatever is in doubt is asked again.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import logging
import math
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from boreas_agent.drivers import procfs
from boreas_agent.errors import Transient
from boreas_agent.lines import Lines

_SOURCE = Path(__file__).parent.parent / "keeper"
_HELLO_SECONDS = 1.0
_START_SECONDS = 10.0
_REVIVE_SECONDS = 1.0
ANSWER_SECONDS = 5.0
_log = logging.getLogger(__name__)

Notice = Callable[[str, int, Mapping[str, Any], bool], None]
Gone = Callable[[tuple[int, int]], Awaitable[None]]
"""Told of a keeper, by pid and start time, that has hung up: perhaps it is there no more."""
InThread = Callable[..., Awaitable[Any]]


def source_hash() -> str:
    """Names the version of the keeper."""
    digest = hashlib.sha256()
    for path in sorted(_SOURCE.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def _retire(pid: int, start: int) -> None:
    """Nobody will ask a keeper of another version for a run again: it is to end with the last one it has."""
    found = procfs.stat(pid)
    if found is not None and found.start == start:
        procfs.send(found, signal.SIGTERM)


class Lost(Exception):
    """The keeper has gone, or does not answer; whether it did what was asked is unknown."""


class Link(Lines):
    """One connection to one keeper."""

    def __init__(self, own: bool, notice: Notice, lost: Callable[[Link], None]) -> None:
        super().__init__()
        self.own = own
        self.identity: asyncio.Future[tuple[int, int]] = asyncio.get_running_loop().create_future()
        self._notice = notice
        self._lost = lost
        self._asked: dict[int, asyncio.Future[Mapping[str, Any]]] = {}
        self._due: asyncio.TimerHandle | None = None  # when it is time for an answer; one for all, for making one delays what was asked
        self._ids = itertools.count(1)
        self._heard = 0.0

    @property
    def usable(self) -> bool:
        """It has said who it is and the connection stands."""
        return self.own and self.transport is not None and self.identity.done() and not self.identity.cancelled()

    def data_received(self, data: bytes) -> None:
        self._heard = asyncio.get_running_loop().time()
        super().data_received(data)

    def heard(self, said: Mapping[str, Any]) -> None:
        if "exit" in said:
            self._notice(said["exit"], said["run"], said["data"], said.get("clean", False))
        elif "keeper" in said:
            if not self.identity.done():
                self.identity.set_result((said["keeper"][0], said["keeper"][1]))
        else:
            asked = self._asked.pop(said["id"], None)
            if asked and not asked.done():
                asked.set_result(said)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.identity.cancel()
        for asked in self._asked.values():
            if not asked.done():
                asked.set_exception(Lost())
        self._asked.clear()
        if self._due is not None:
            self._due.cancel()
        self._lost(self)

    def close(self) -> None:
        """Hang up: the keeper drops what it has not yet done of what was asked."""
        transport, self.transport = self.transport, None
        if transport:
            transport.abort()

    async def ask(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """The answer; raises Lost. A keeper that answers others in the meantime is busy, not lost."""
        if self.transport is None:
            raise Lost
        number, loop = next(self._ids), asyncio.get_running_loop()
        asked: asyncio.Future[Mapping[str, Any]] = loop.create_future()
        self._asked[number] = asked
        self.send({"id": number, **request})
        self._heard = loop.time()
        if self._due is None:
            self._due = loop.call_at(self._heard + ANSWER_SECONDS, self._late)
        try:
            return await asked
        finally:
            self._asked.pop(number, None)

    def _late(self) -> None:
        """It is time for an answer, if anything was asked and nothing was heard since."""
        self._due = None
        due, loop = self._heard + ANSWER_SECONDS, asyncio.get_running_loop()
        waiting = [asked for asked in self._asked.values() if not asked.done()]
        if waiting and loop.time() < due:
            self._due = loop.call_at(due, self._late)
            return
        for asked in waiting:
            asked.set_exception(Lost())


class Keepers:
    """All keepers of one work dir."""

    def __init__(self, folder: Path, in_thread: InThread, notice: Notice, gone: Gone) -> None:
        self._folder = folder
        self._in_thread = in_thread
        self._notice = notice
        self._gone = gone
        self._cgroup: Path | None = None
        self._links: set[Link] = set()
        self._names: dict[Link, str] = {}
        self._dialled: set[socket.socket] = set()  # connected, and not yet in the hands of a link
        self._starting = asyncio.Lock()
        self._hash = ""
        self._directory = -1
        self._started = -math.inf
        self._closed = False
        self._reviving: asyncio.Task[None] | None = None
        self._lost: list[tuple[int, int]] = []  # keepers that have hung up, and nobody was told so far

    async def open(self, cgroup: Path | None) -> None:
        """Connect to every keeper there is, and see to it that one of our own version is among them."""
        self._cgroup = cgroup
        self._hash, self._directory = await self._in_thread(self._prepare)
        with suppress(Transient):
            await self._own()

    def _prepare(self) -> tuple[str, int]:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder.chmod(0o700)
        return source_hash(), os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)

    async def close(self) -> None:
        """Hang up; the keepers stay."""
        self._closed = True
        if self._reviving:
            self._reviving.cancel()
            await asyncio.wait((self._reviving,))
        for link in tuple(self._links):
            link.close()
        for sock in self._dialled:
            sock.close()
        if self._directory >= 0:
            await self._in_thread(os.close, self._directory)
            self._directory = -1

    @property
    def up(self) -> bool:
        """A keeper of this version is there, and takes orders."""
        return self._ready() is not None

    def linked(self, keeper: tuple[int, int]) -> bool:
        """Whether this keeper would tell us of an exit."""
        return any(link.identity.done() and not link.identity.cancelled() and link.identity.result() == keeper for link in self._links)

    async def spawn(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """``claim`` or ``claimed``; raises Transient where nothing was started or nobody answers.

        A blank is asked for once: of two children at work in it either could move in what the other has claimed.
        """
        for _ in range(2 if request["blank"] is None else 1):
            link = await self._own()
            try:
                answer = await link.ask(request)
            except Lost:
                link.close()
                continue
            if "error" in answer:
                raise Transient(answer["error"])
            return answer
        raise Transient(f"cannot start {request['program']}: the keeper of {self._folder} does not answer; trying again")

    async def _own(self) -> Link:
        """A keeper of our version that answers; raises Transient."""
        async with self._starting:
            if link := self._ready():
                return link
            await self._connect_all()
            if link := self._ready():
                return link
            self._started = asyncio.get_running_loop().time()
            await self._in_thread(self._start)
            await self._connect_all()
            if link := self._ready():
                return link
        raise Transient(f"cannot reach the keeper that was started; see {self._folder}/{self._hash}.log")

    def _ready(self) -> Link | None:
        return next((link for link in self._links if link.usable), None)

    async def _connect_all(self) -> None:
        if await self._in_thread(self._folder_is_gone):
            directory, (self._hash, self._directory) = self._directory, await self._in_thread(self._prepare)
            await self._in_thread(os.close, directory)
        names = await self._in_thread(lambda: sorted(path.name for path in self._folder.glob("[!.]*.sock")))
        known = set(self._names.values())
        await asyncio.gather(*(self._connect(name) for name in names if name not in known))

    async def _connect(self, name: str) -> None:
        sock = await self._in_thread(self._dial, name)
        if sock is None:
            return
        link = Link(name.startswith(self._hash), self._notice, self._dropped)
        await asyncio.get_running_loop().create_unix_connection(lambda: link, sock=sock)
        self._dialled.discard(sock)
        self._links.add(link)
        self._names[link] = name
        with suppress(asyncio.CancelledError, TimeoutError):
            await asyncio.wait((link.identity,), timeout=_HELLO_SECONDS)
        if not link.own and link.identity.done() and not link.identity.cancelled():
            await self._in_thread(_retire, *link.identity.result())

    def _folder_is_gone(self) -> bool:
        """Somebody deleted it; what we hold open leads nowhere."""
        return not self._folder.exists() or self._folder.stat().st_ino != os.fstat(self._directory).st_ino

    def _dial(self, name: str) -> socket.socket | None:
        """A socket that nobody listens on is what a killed keeper left. The path is short, whatever the work dir."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(_HELLO_SECONDS)
        try:
            sock.connect(f"/proc/self/fd/{self._directory}/{name}")
        except ConnectionRefusedError:
            sock.close()
            with suppress(FileNotFoundError):
                (self._folder / name).unlink()
            return None
        except OSError:
            sock.close()
            return None
        sock.setblocking(False)
        self._dialled.add(sock)
        if self._closed:  # whoever wanted it has been cancelled
            sock.close()
            return None
        return sock

    def _dropped(self, link: Link) -> None:
        self._links.discard(link)
        self._names.pop(link, None)
        if link.identity.done() and not link.identity.cancelled():
            self._lost.append(link.identity.result())
        if not self._closed and (self._reviving is None or self._reviving.done()):
            self._reviving = asyncio.get_running_loop().create_task(self._revive())

    async def _revive(self) -> None:
        """Have another keeper ready before it is needed, but do not insist where keepers do not live."""
        while self._lost:
            await self._gone(self._lost.pop())
        await asyncio.sleep(max(0.0, self._started + _REVIVE_SECONDS - asyncio.get_running_loop().time()))
        with suppress(Transient):
            await self._own()

    def _start(self) -> None:
        """Start a keeper, which makes itself a daemon; raises Transient. It gets nothing of our environment."""
        command = [sys.executable, "-I", "-S", "-X", "utf8", str(_SOURCE / "__main__.py"), str(self._folder), self._hash]
        command += [str(self._cgroup)] if self._cgroup else []
        try:
            with subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, cwd="/", env={"PATH": os.defpath}, start_new_session=True
            ) as starter:
                assert starter.stdout
                readable, _, _ = select.select([starter.stdout], [], [], _START_SECONDS)
                said = os.read(starter.stdout.fileno(), 64) if readable else b""
                if said != b"ready\n":
                    starter.kill()
                    raise Transient(f"cannot start the keeper; see {self._folder}/{self._hash}.log")
        except OSError as error:
            raise Transient(f"cannot start the keeper: {error.strerror}") from error
        _log.info("started a keeper", extra={"folder": str(self._folder)})
