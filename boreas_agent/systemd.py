"""What systemd is told, where it asks to be told (``NOTIFY_SOCKET``; sd_notify(3)).

A datagram to a socket is all there is to it, so there is no library here. The watchdog is fed only by an event loop
that turns and a store that takes requests: an agent that hangs is ended and started anew, which no app notices.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from msgspec import Struct

log = logging.getLogger(__name__)

STATUS_SECONDS = 10.0
"""How old the line may be that ``systemctl status`` shows."""
_FEEDS = 3
"""How often the watchdog is fed in the time after which it bites."""


class Supervisor(Struct, frozen=True):
    """``address`` empty: nobody wants to be told; ``watchdog`` None: nobody waits for a sign of life (else its seconds)."""

    address: str = ""
    watchdog: float | None = None

    @classmethod
    def of(cls, environ: Mapping[str, str], pid: int) -> Supervisor:
        """Whom ``environ`` names. A watchdog that is meant for another process is none of ours."""
        address = environ.get("NOTIFY_SOCKET", "")
        if not address.startswith(("/", "@")):
            return cls()
        micros, whose = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
        fed = micros.isdecimal() and int(micros) > 0 and whose in {"", str(pid)}
        return cls(address, int(micros) / 1e6 if fed else None)

    def tell(self, *states: str) -> None:
        """Send ``READY=1`` and the like. Never waits and never fails: whoever does not listen misses it."""
        if not self.address:
            return
        address = f"\0{self.address[1:]}" if self.address.startswith("@") else self.address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as out:
            try:
                out.sendto("\n".join(states).encode(), address)
            except OSError as error:
                log.debug("the service manager could not be told", extra={"state": states, "error": str(error)})

    def ready(self, status: str) -> None:
        """It serves (again)."""
        self.tell("READY=1", _status(status))

    def reloading(self) -> None:
        """It reads its configuration; ``ready`` says when it has."""
        self.tell("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """It was told to end."""
        self.tell("STOPPING=1", _status("stopping; apps go on running"))

    async def keep_telling(self, status: Callable[[], str], alive: Callable[[float], Awaitable[bool]]) -> None:
        """Until cancelled: how it is, and that it is well, as long as ``alive`` (within so many seconds) says so."""
        if not self.address:
            return
        every = STATUS_SECONDS if self.watchdog is None else min(STATUS_SECONDS, self.watchdog / _FEEDS)
        told = ""
        while True:
            if self.watchdog is not None:
                if await alive(every):
                    self.tell("WATCHDOG=1")
                else:
                    log.error("the database does not answer; the watchdog is not fed", extra={"seconds": every})
            if (now := status()) != told:
                told = now
                self.tell(_status(now))
            await asyncio.sleep(every)


def _status(text: str) -> str:
    return f"STATUS={' '.join(text.split())}"


def supervisor() -> Supervisor:
    """Of this process; whatever it starts is not to speak in its name."""
    found = Supervisor.of(os.environ, os.getpid())
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
        with suppress(KeyError):
            del os.environ[name]
    return found
