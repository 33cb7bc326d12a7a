"""What an app that writes without end costs: the disk, which its log may not fill, and its neighbours, who may not notice."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.agent import agent
from benchmarks.first_instruction import reporter
from benchmarks.report import Bound, Line, amount, compared, milliseconds
from benchmarks.requests import apply, keep_running
from benchmarks.sampling import in_turn
from benchmarks.starting import PAUSE, Kept
from benchmarks.wire import Connection
from benchmarks.workspace import workspace
from tests.waiting import eventually

ROUNDS = 5
SAMPLES = 20
MEGABYTES_PER_SECOND = 200
LOG = {"max_size": "16Mi", "max_files": 2}
KEPT = 2 * 16 * 1024**2
BETWEEN_LOOKS = MEGABYTES_PER_SECOND * 1_000_000 / 20
"""What comes while the keeper does not look, which it does 20 times a second at most (docs/architecture.md, "Known limits")."""
LOOK_EVERY = 0.002

WRITER = """
import os, sys, time
rate, quiet, block = float(sys.argv[1]), sys.argv[2], (b"x" * 99 + b"\\n") * 5000
due = time.monotonic()
while True:
    if os.path.exists(quiet):
        time.sleep(0.01)
        due = time.monotonic()
        continue
    os.write(1, block)
    due = max(due + len(block) / rate, time.monotonic() - 0.1)
    time.sleep(max(0.0, due - time.monotonic()))
"""


@dataclass(slots=True)
class _Street:
    """An app that is killed again and again, and one next door that writes unless ``hush`` is there."""

    kept: Kept
    hush: Path
    log: Path
    quiet: list[float] = field(default_factory=list)
    noisy: list[float] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)

    def without(self) -> float:
        """Heals while nobody writes."""
        self.hush.touch()
        time.sleep(PAUSE)
        return self._heals(self.quiet)

    def beside(self) -> float:
        """Heals while the other one writes."""
        self.hush.unlink()
        before, began = self.log.stat().st_size, time.monotonic()
        eventually(lambda: self.log.stat().st_size > before + KEPT)
        try:
            return self._heals(self.noisy)
        finally:
            self.rates.append((self.log.stat().st_size - before) / (time.monotonic() - began) / 1e6)

    def _heals(self, samples: list[float]) -> float:
        began = time.monotonic()
        for _ in range(SAMPLES):
            samples.append(self.kept.kill())
            time.sleep(PAUSE)
        return time.monotonic() - began

    @contextmanager
    def measured(self) -> Iterator[None]:
        """What the log takes of the disk meanwhile, looked at all the time."""
        over = threading.Event()
        watching = threading.Thread(target=self._measure, args=(over,))
        watching.start()
        try:
            yield
        finally:
            over.set()
            watching.join()

    def _measure(self, over: threading.Event) -> None:
        while not over.wait(LOOK_EVERY):
            self.sizes.append(self.log.stat().st_blocks * 512)


def neighbour() -> Sequence[Line]:
    """One writes 200 MB/s, with rests in which the other is looked at alone."""
    with workspace() as folder, reporter(folder) as reports, agent(folder) as node, Connection(node.port) as connection:
        hush = folder / "hush"
        hush.touch()
        connection.send(keep_running("web", reports.command("web")))
        kept = Kept(reports, "web", reports.next("web").pid)
        connection.receive()
        writer = ["/usr/bin/env", "python3", "-c", WRITER, str(MEGABYTES_PER_SECOND * 1_000_000), str(hush)]
        connection.send(apply("noisy", "v1", {"type": "binary", "command": writer, "log": LOG}))
        connection.receive()
        street = _Street(kept, hush, folder / "node/apps/noisy/logs/0.stdout.log")
        eventually(street.log.exists, 30)
        with street.measured():
            in_turn(ROUNDS, street.without, street.beside)
    rate = f"writing {min(street.rates):.0f}–{max(street.rates):.0f} MB/s, log bounded to {KEPT / 1024**2:.0f} MiB"
    most = (KEPT + 2 * BETWEEN_LOOKS) / 1024**2
    return (
        compared(
            "process killed → successor, beside an app that writes 200 MB/s and alone", street.noisy, street.quiet, Bound(1.5), milliseconds
        ),
        amount("the most that this app's log took of the disk", max(street.sizes) / 1024**2, "MiB", Bound(most), rate),
    )
