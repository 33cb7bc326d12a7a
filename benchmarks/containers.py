"""How soon a container runs, beside the engine's own command and its own restart policy; on an engine of our own."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from benchmarks.agent import agent
from benchmarks.first_instruction import Reporter, reporter
from benchmarks.report import Bound, Line, Skipped, compared, milliseconds
from benchmarks.requests import IMMEDIATE, apply
from benchmarks.sampling import in_turn
from benchmarks.wire import Connection
from benchmarks.workspace import workspace
from tests.engine.engine import Engine, why_not
from tests.waiting import eventually

IMAGE = "boreas-bench/first-instruction:1"
SAMPLES = 15
PAUSE = 0.2


@dataclass(slots=True)
class _Agent:
    """Containers started by applying an app; each is removed again before the next sample."""

    connection: Connection
    engine: Engine
    reports: Reporter
    numbers: count[int] = field(default_factory=count)

    def start(self) -> float:
        """Seconds from sending the request to the container's first instruction."""
        app = f"app-{next(self.numbers)}"
        took = self._apply(app)
        self._remove(app)
        return took

    def kill(self) -> float:
        """Seconds from killing the container's process to the first instruction of the next."""
        app = f"app-{next(self.numbers)}"
        self._apply(app)
        (container,) = self.engine.client.containers(all=True, filters={"label": f"boreas.app={app}"})
        took = _killed(self.engine, container["Id"], self.reports, app)
        self._remove(app)
        return took

    def _apply(self, app: str) -> float:
        folder = str(self.reports.folder)
        pkg = {
            "type": "docker",
            "image": IMAGE,
            "args": [str(self.reports.address), app],
            "volumes": [{"host_path": folder, "container_path": folder}],
            "restart": IMMEDIATE,
        }
        request = apply(app, "v1", pkg)
        began = time.monotonic_ns()
        self.connection.send(request)
        started = self.reports.next(app).at
        self.connection.receive()
        return (started - began) / 1e9

    def _remove(self, app: str) -> None:
        self.connection.ask("DELETE", f"/v1/apps/{app}")
        eventually(lambda: self.connection.ask("GET", f"/v1/status/{app}")[0] == 404, 30)


@dataclass(slots=True)
class _Command:
    """Containers started by ``docker run -d``."""

    docker: str
    engine: Engine
    reports: Reporter
    numbers: count[int] = field(default_factory=count)

    def start(self) -> float:
        """Seconds from running the command to the container's first instruction."""
        name = f"run-{next(self.numbers)}"
        took = self._run(name)
        self.engine.client.remove_container(name, force=True)
        return took

    def kill(self) -> float:
        """The same as the agent's, healed by ``--restart always``; a fresh container each time, because its delay doubles."""
        name = f"run-{next(self.numbers)}"
        self._run(name, "--restart", "always")
        took = _killed(self.engine, name, self.reports, name)
        self.engine.client.remove_container(name, force=True)
        return took

    def _run(self, name: str, *options: str) -> float:
        folder = self.reports.folder
        command = [self.docker, "-H", f"unix://{self.engine.socket}", "run", "-d", "--name", name, "-v", f"{folder}:{folder}", *options]
        began = time.monotonic_ns()
        subprocess.run([*command, IMAGE, str(self.reports.address), name], check=True, stdout=subprocess.DEVNULL)
        return (self.reports.next(name).at - began) / 1e9


def start() -> Sequence[Line]:
    """A fresh container each time, of an image that is there."""
    with _sides() as (ours, command):
        applied, run = in_turn(SAMPLES, ours.start, command.start, pause=PAUSE)
    return (compared("docker apply → container running (docker run -d)", applied, run, Bound(1.2), milliseconds),)


def restart() -> Sequence[Line]:
    """Its process killed by the kernel's hand, not through the engine, which would take that for a wish."""
    with _sides() as (ours, command):
        healed, restarted = in_turn(SAMPLES, ours.kill, command.kill, pause=PAUSE)
    return (compared("container killed → running again (docker run --restart always)", healed, restarted, Bound(1.2), milliseconds),)


@contextmanager
def _sides() -> Iterator[tuple[_Agent, _Command]]:
    reason = why_not()
    docker = shutil.which("docker")
    if reason or docker is None:
        raise Skipped(reason or "not installed: the docker command")
    with (
        workspace() as folder,
        reporter(folder) as reports,
        _engine(reports.program) as engine,
        agent(folder, engine.socket) as node,
        Connection(node.port) as connection,
    ):
        yield _Agent(connection, engine, reports), _Command(docker, engine, reports)


@contextmanager
def _engine(program: Path) -> Iterator[Engine]:
    engine = Engine()
    try:
        engine.start()
        name, _, tag = IMAGE.rpartition(":")
        engine.client.import_image_from_data(_rootfs(program), repository=name, tag=tag, changes=['ENTRYPOINT ["/first_instruction"]'])
        yield engine
    finally:
        engine.close()


def _rootfs(program: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(program, "first_instruction")
    return buffer.getvalue()


def _killed(engine: Engine, container: str, reports: Reporter, tag: str) -> float:
    pid = eventually(lambda: _pid(engine, container))
    began = time.monotonic_ns()
    os.kill(pid, signal.SIGKILL)
    return (reports.next(tag).at - began) / 1e9


def _pid(engine: Engine, container: str) -> int:
    """0 until the engine has noticed that it runs, which is after the first instruction."""
    state = engine.client.inspect_container(container)["State"]
    return int(state["Pid"]) if state["Running"] else 0
