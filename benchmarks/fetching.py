"""What fetching a large artifact costs, beside ``curl`` and ``sha256sum``, and whether anybody notices."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path

from benchmarks.agent import Agent, agent
from benchmarks.report import Bound, Line, Skipped, amount, compared
from benchmarks.sampling import in_turn
from benchmarks.wire import Connection
from benchmarks.workspace import reference, workspace
from tests.ports import free_port
from tests.waiting import eventually

SIZE = 1024**3
ROUNDS = 5
IDLE_SECONDS = 3.0
ASK_EVERY = 0.001
DEADLINE_SECONDS = 120.0


@dataclass(slots=True)
class _Place:
    """A running agent, a server of a large file, and what was seen of the agent while it fetched."""

    folder: Path
    node: Agent
    url: str
    sha256: str
    apps: Iterator[int] = field(default_factory=count)
    answers: dict[str, list[float]] = field(default_factory=lambda: {"idle": [], "fetch": [], "curl": []})
    resident: list[int] = field(default_factory=list)

    def fetch(self) -> float:
        """Seconds from the request until the release is there, durable and verified; the agent is watched meanwhile."""
        app = f"app-{next(self.apps)}"
        artifact = {"url": self.url, "sha256": self.sha256, "dest": "app"}
        pkg = {"type": "binary", "command": ["/bin/sleep", "1000000"], "artifacts": [artifact], "stop": {"grace_seconds": 0}}
        release = self.folder / "node/apps" / app / "releases/1"
        with Connection(self.node.port) as connection, self._watched("fetch"):
            began = time.perf_counter()
            connection.ask("POST", "/v1/apply", json.dumps({"app": app, "version": "v1", "pkg": pkg}).encode())
            eventually(release.exists, DEADLINE_SECONDS)
            spent = time.perf_counter() - began
        with Connection(self.node.port) as connection:
            connection.ask("DELETE", f"/v1/apps/{app}")
            eventually(lambda: connection.ask("GET", f"/v1/status/{app}")[0] == 404, DEADLINE_SECONDS)
        (self.folder / "node/cache/sha256" / self.sha256).unlink()
        return spent

    def curl(self) -> float:
        """The same by hand."""
        file = self.folder / "by-hand"
        with self._watched("curl"):
            began = time.perf_counter()
            subprocess.run(["curl", "--silent", "--fail", "-o", str(file), self.url], check=True)
            subprocess.run(["sha256sum", str(file)], check=True, stdout=subprocess.DEVNULL)
            spent = time.perf_counter() - began
        file.unlink()
        return spent

    def idle(self) -> float:
        """A while in which the agent only answers."""
        with self._watched("idle"):
            time.sleep(IDLE_SECONDS)
        return IDLE_SECONDS

    @contextmanager
    def _watched(self, what: str) -> Iterator[None]:
        over = threading.Event()
        watching = threading.Thread(target=self._watch, args=(what, over))
        watching.start()
        try:
            yield
        finally:
            over.set()
            watching.join()

    def _watch(self, what: str, over: threading.Event) -> None:
        with Connection(self.node.port) as connection:
            while not over.is_set():
                self.answers[what].append(_asked(connection))
                if what == "fetch":
                    self.resident.append(_resident(self.node.pid))


def fetch() -> Sequence[Line]:
    """A gibibyte over loopback."""
    if shutil.which("curl") is None:
        raise Skipped("there is no curl on this machine")
    with workspace() as folder, _served(folder) as (url, sha256), agent(folder) as node:
        place = _Place(folder, node, url, sha256)
        place.fetch()  # what is imported and made for the first fetch stays
        before = _resident(node.pid)
        place.resident.clear()
        ours, by_hand, _ = in_turn(ROUNDS, place.fetch, place.curl, place.idle)
    quiet, busy, beside = (_p99(place.answers[what]) for what in ("idle", "fetch", "curl"))
    detail = (
        f"p99 {busy * 1000:.2f} ms, median {statistics.median(place.answers['fetch']) * 1000:.2f} ms; {beside * 1000:.2f} ms beside curl"
    )
    return (
        compared("1 GiB artifact, verified and durable, beside curl and sha256sum", ours, by_hand, Bound(1.3), _seconds),
        amount("memory of the agent meanwhile, growth", (max(place.resident) - before) / 1024**2, "MiB", Bound(16), "RSS"),
        amount(f"API meanwhile, p99 as a multiple of {quiet * 1000:.2f} ms when idle", busy / quiet, "×", Bound(2), detail),
    )


@contextmanager
def _served(folder: Path) -> Iterator[tuple[str, str]]:
    """The address and the checksum of a large file of noise."""
    file, found, port = folder / "large", hashlib.sha256(), free_port()
    with file.open("wb") as out:
        for _ in range(SIZE // 1024**2):
            block = os.urandom(1024**2)
            found.update(block)
            out.write(block)
    with reference("file_server", str(port), str(file)):
        eventually(partial(_listens, port), 30)
        yield f"http://127.0.0.1:{port}/large", found.hexdigest()


def _listens(port: int) -> bool:
    try:
        Connection(port).__exit__(None, None, None)
    except ConnectionError:
        return False
    return True


def _asked(connection: Connection) -> float:
    time.sleep(ASK_EVERY)
    began = time.perf_counter()
    connection.ask("GET", "/v1/status")
    return time.perf_counter() - began


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _p99(samples: Sequence[float]) -> float:
    return statistics.quantiles(samples, n=100)[98]


def _seconds(samples: Sequence[float]) -> str:
    return f"{statistics.median(samples):.2f} s ({min(samples):.2f}–{max(samples):.2f})"
