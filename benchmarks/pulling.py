"""How soon an image is here, beside the engine's own command; from a registry of our own on this machine."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from benchmarks.agent import agent
from benchmarks.report import Bound, Line, Skipped, compared, milliseconds
from benchmarks.requests import apply
from benchmarks.sampling import in_turn
from benchmarks.wire import Connection
from benchmarks.workspace import workspace
from tests.engine.engine import Engine, program, why_not
from tests.engine.registry import Registry
from tests.waiting import eventually

SAMPLES = 9
PAUSE = 0.2
SIZE = 48 * 2**20
"""Bytes that no compression makes less."""


@dataclass(slots=True)
class _Sides:
    """Both ends are the engine's own word for the image being here; both begin with what a user does."""

    docker: str
    engine: Engine
    connection: Connection
    image: str
    numbers: count[int] = field(default_factory=count)

    def agent(self) -> float:
        """Seconds from sending an app to the agent until its image is here."""
        app = f"app-{next(self.numbers)}"
        pkg = {"type": "docker", "image": self.image, "command": ["/bin/busybox", "sleep", "1000"], "stop": {"grace_seconds": 0}}
        request = apply(app, "v1", pkg)
        began = time.time_ns()
        self.connection.send(request)
        self.connection.receive()
        took = (self._here_since(began) - began) / 1e9
        self.connection.ask("DELETE", f"/v1/apps/{app}")
        eventually(lambda: self.connection.ask("GET", f"/v1/status/{app}")[0] == 404, 30)
        self.engine.client.remove_image(self.image, force=True)
        return took

    def command(self) -> float:
        """Seconds from running the command until the image is here."""
        began = time.time_ns()
        subprocess.run(
            [self.docker, "-H", f"unix://{self.engine.socket}", "pull", "--quiet", self.image], check=True, stdout=subprocess.DEVNULL
        )
        took = (self._here_since(began) - began) / 1e9
        self.engine.client.remove_image(self.image, force=True)
        return took

    def _here_since(self, began: int) -> int:
        filters = {"type": "image", "event": "pull"}
        with closing(self.engine.client.events(since=began // 10**9, filters=filters, decode=True)) as events:
            return next(int(event["timeNano"]) for event in events if int(event["timeNano"]) >= began)


def pull() -> Sequence[Line]:
    """An image of some size that is not here; the container that the agent makes of it is not part of it."""
    with _sides() as sides:
        ours, theirs = in_turn(SAMPLES, sides.agent, sides.command, pause=PAUSE)
    return (compared(f"image of {SIZE >> 20} MiB applied → here (docker pull)", ours, theirs, Bound(1.1), milliseconds),)


@contextmanager
def _sides() -> Iterator[_Sides]:
    reason = why_not()
    docker = shutil.which("docker")
    if reason or docker is None:
        raise Skipped(reason or "not installed: the docker command")
    engine = Engine()
    try:
        engine.start()
        with closing(Registry(engine)) as registry:
            image = _push(engine, f"{registry.host}/bench/large")
            with workspace() as folder, agent(folder, engine.socket) as node, Connection(node.port) as connection:
                yield _Sides(docker, engine, connection, image)
    finally:
        engine.close()


def _push(engine: Engine, repository: str) -> str:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(Path(program("busybox")).resolve(), "bin/busybox")
        blob = tarfile.TarInfo("blob")
        blob.size = SIZE
        tar.addfile(blob, io.BytesIO(os.urandom(SIZE)))
    engine.client.import_image_from_data(buffer.getvalue(), repository=repository, tag="1")
    answer = list(engine.client.push(repository, "1", stream=True, decode=True))
    if any("error" in message for message in answer):
        raise RuntimeError(f"cannot push {repository}: {answer[-1]}")
    engine.client.remove_image(f"{repository}:1")
    return f"{repository}:1"
