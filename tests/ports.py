"""Ports for what is to listen in a test."""

from __future__ import annotations

import random
import socket
from contextlib import suppress
from pathlib import Path

_LOWEST = 10_000


def free_port() -> int:
    """A TCP port that nobody listens on now, and that the kernel gives to no connection: who asks before anybody listens is refused."""
    lowest_given = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    spared = range(_LOWEST, lowest_given) or range(_LOWEST, 1 << 16)  # some machines give all there are
    while True:
        port = random.choice(spared)
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("", port))
            return port
