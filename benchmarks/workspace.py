"""A folder for one benchmark, and the references that run beside the agent; afterwards nothing of either is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.wire import Connection
from tests.engine.node import processes_with
from tests.ports import free_port
from tests.waiting import eventually


@contextmanager
def workspace() -> Iterator[Path]:
    """An empty folder. Whatever still runs from it at the end (a benchmark that failed halfway) is killed, by pid."""
    with tempfile.TemporaryDirectory(prefix="boreas-bench-") as name:
        folder = Path(name)
        try:
            yield folder
        finally:
            eventually(lambda: not _killed(folder), 30)


def _killed(folder: Path) -> list[int]:
    left = processes_with(f"{folder}/")
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return left


@contextmanager
def reference(module: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """One of ``benchmarks.references`` as a process of its own."""
    command = [sys.executable, "-m", f"benchmarks.references.{module}", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def validating_handler() -> Iterator[int]:
    """The reference for the API; its port."""
    port = free_port()
    with reference("validating_handler", str(port)):
        eventually(lambda: _listens(port), 30)
        yield port


@contextmanager
def pidfd_loop(command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """The reference for processes, keeping ``command`` running; its standard output tells when each start began."""
    with reference("pidfd_loop", *command) as loop:
        yield loop


def _listens(port: int) -> bool:
    with suppress(ConnectionError), Connection(port):
        return True
    return False
