"""A program that reports when its first instruction ran, and the socket that hears of it.

The program stamps the time itself, so neither a slow reader here nor polling is part of what is measured. It is C, statically
linked: an interpreter would add its own start, many times longer than what is measured, to both sides.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.report import Skipped

SOURCE = Path(__file__).with_suffix(".c")
DEADLINE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Report:
    """One start of the program: when its first instruction ran (ns of CLOCK_MONOTONIC) and its pid, as it sees it itself."""

    at: int
    pid: int
    tag: str


@dataclass(frozen=True, slots=True)
class Reporter:
    """The program and where it reports to."""

    folder: Path
    program: Path
    ear: socket.socket

    @property
    def address(self) -> Path:
        """The unix datagram socket that the program's first argument names."""
        return self.folder / "ear"

    def command(self, tag: str) -> list[str]:
        """Start this; ``tag`` comes back in the report."""
        return [str(self.program), str(self.address), tag]

    def next(self, tag: str) -> Report:
        """The next report, which must be that of ``tag``."""
        report = self.any()
        if report.tag != tag:
            raise RuntimeError(f"expected a start of {tag}, but {report.tag} (pid {report.pid}) reported one")
        return report

    def any(self) -> Report:
        """The next report; raises RuntimeError where none comes in time."""
        try:
            at, pid, tag = self.ear.recv(256).decode().split(" ", 2)
        except TimeoutError:
            raise RuntimeError(f"no program reported a start within {DEADLINE_SECONDS:g} s") from None
        return Report(int(at), int(pid), tag)


@contextmanager
def reporter(folder: Path) -> Iterator[Reporter]:
    """Builds the program in ``folder`` and listens there; raises Skipped where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise Skipped("needs a C compiler (cc or gcc) for a program whose first instruction can be timed")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        program = folder / "first_instruction"
        subprocess.run([compiler, "-O2", "-static", "-o", str(program), str(SOURCE)], check=True)
        ear.bind(str(folder / "ear"))
        ear.settimeout(DEADLINE_SECONDS)
        yield Reporter(folder, program, ear)
