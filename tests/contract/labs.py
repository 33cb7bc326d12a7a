"""The worlds in which the one driver suite runs: real processes, real scripts, a real engine, and the simulated machine."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any, Protocol

from boreas_agent.drivers.base import Driver
from boreas_agent.model import Instance, Observed
from tests.engine import processes, wants
from tests.engine.engine import Engine
from tests.world import FakeClock, FakeDriver, World

IGNORING = "trap '' HUP; while :; do sleep 1; done"


def told(content: str, path: str) -> dict[str, Any]:
    """A file of which a running app is told."""
    return {"path": path, "content": content, "on_change": "signal"}


class Lab(Protocol):
    """One world. Every driver that it makes is of the same node."""

    counts_runs: bool

    def driver(self) -> Driver:
        """What an agent would have after another restart."""

    def lasting(self, app: str = "web", revision: int = 1) -> Instance:
        """An instance that runs until it is told to stop."""

    def ending(self, code: int, app: str = "web") -> Instance:
        """An instance that ends at once with this status."""

    def telling(self, content: str, revision: int = 1) -> Instance:
        """A lasting one that can be told of another content of its file by a signal, which it ignores."""

    def kill(self, seen: Observed) -> None:
        """What ``kill -9`` by somebody else does."""


class ProcessLab:
    """Binaries or scripts under a real keeper."""

    counts_runs = True

    def __init__(self, place: processes.Ground, kind: str) -> None:
        self.place = place
        self.kind = kind

    def driver(self) -> Driver:
        return self.place.make()

    def lasting(self, app: str = "web", revision: int = 1) -> Instance:
        return self._shell("exec sleep 1000000", app, revision)

    def ending(self, code: int, app: str = "web") -> Instance:
        return self._shell(f"exit {code}", app, 1)

    def telling(self, content: str, revision: int = 1) -> Instance:
        return processes.shell(IGNORING, files=[told(content, "conf")], revision=revision, made_by=1)

    def _shell(self, line: str, app: str, revision: int) -> Instance:
        command = [line] if self.kind == "script" else ["/bin/sh", "-c", line]
        return processes.want(app, revision=revision, version=f"v{revision}", type=self.kind, command=command)

    def kill(self, seen: Observed) -> None:
        os.kill(int(seen.ref), signal.SIGKILL)


class DockerLab:
    """Containers of a real engine."""

    counts_runs = False

    def __init__(self, engine: Engine, make: Callable[[], Driver]) -> None:
        self.engine = engine
        self.driver = make

    def lasting(self, app: str = "web", revision: int = 1) -> Instance:
        return wants.want(app, revision=revision)

    def ending(self, code: int, app: str = "web") -> Instance:
        return wants.shell(f"exit {code}", app)

    def telling(self, content: str, revision: int = 1) -> Instance:
        return wants.shell(IGNORING, files=[told(content, "/conf")], revision=revision, made_by=1)

    def kill(self, seen: Observed) -> None:
        self.engine.client.kill(seen.ref, "SIGKILL")


class FakeLab:
    """The simulated machine that the property tests use: it must behave as the real ones do."""

    counts_runs = True

    def __init__(self) -> None:
        self.world = World(FakeClock())
        self.drivers: list[FakeDriver] = []

    def driver(self) -> Driver:
        driver = FakeDriver(self.world, frozenset({"binary"}))
        self.drivers.append(driver)
        return driver

    def lasting(self, app: str = "web", revision: int = 1) -> Instance:
        return processes.want(app, revision=revision, version=f"v{revision}", command=["/bin/sleep", "1000000"])

    def ending(self, code: int, app: str = "web") -> Instance:
        self.world.programs[app, "ending"] = code
        return processes.want(app, version="ending", command=["/bin/sh", "-c", f"exit {code}"])

    def telling(self, content: str, revision: int = 1) -> Instance:
        return processes.shell(IGNORING, files=[told(content, "conf")], revision=revision, made_by=1)

    def kill(self, seen: Observed) -> None:
        self.world.end(self.world.things[seen.name], signal="SIGKILL")
        for driver in self.drivers:
            driver.hints.put_nowait(seen.name.app)
