"""What ``/proc`` says of a process, and signals that reach the process that is meant or none.

A pid alone means nothing: it may be a stranger's by now. With the start time (and the boot id, which the caller
compares) it identifies a process. A zombie is dead, whatever ``kill(pid, 0)`` says.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

_PROC = Path("/proc")


class Stat(Struct, frozen=True):
    """The part of ``/proc/PID/stat`` that matters here; ``start`` is in clock ticks since boot."""

    pid: int
    state: str
    parent: int
    group: int
    session: int
    start: int

    @property
    def dead(self) -> bool:
        """Ended, and at most waiting to be reaped."""
        return self.state in "ZXx"

    @property
    def paused(self) -> bool:
        """Stopped by a signal, or traced."""
        return self.state in "Tt"


def parse_stat(text: bytes) -> Stat:
    """The command name, in parentheses, may contain anything, parentheses and newlines too."""
    fields = text.rpartition(b")")[2].split()
    pid = int(text.partition(b" ")[0])
    return Stat(pid, fields[0].decode(), int(fields[1]), int(fields[2]), int(fields[3]), int(fields[19]))


def stat(pid: int) -> Stat | None:
    """None where there is no such process."""
    try:
        return parse_stat((_PROC / str(pid) / "stat").read_bytes())
    except (FileNotFoundError, ProcessLookupError):
        return None


def living(pid: int, start: int) -> Stat | None:
    """The process with this identity, None where it has ended or the pid is another's."""
    found = stat(pid)
    return found if found and found.start == start and not found.dead else None


def open_process(pid: int, start: int) -> int | None:
    """A pidfd of the living process with this identity, which the caller closes; None where it has ended."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    if living(pid, start):  # looked at only now: the pidfd already pins which process the pid means
        return fd
    os.close(fd)
    return None


def processes() -> Iterator[Stat]:
    """Every living process of the machine."""
    for entry in os.scandir(_PROC):
        if entry.name.isdigit() and (found := stat(int(entry.name))) and not found.dead:
            yield found


def has_environment(pid: int, setting: str) -> bool:
    """Whether the process was started with ``NAME=value`` in its environment; False where that cannot be read."""
    with suppress(OSError):
        return setting.encode() in (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    return False


def send(process: Stat, number: int) -> None:
    """Signal exactly this process; one that has ended is none to signal."""
    fd = open_process(process.pid, process.start)
    if fd is not None:
        try:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(fd, number)
        finally:
            os.close(fd)
