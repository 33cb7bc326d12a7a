"""The agent as users run it, on a fresh work dir; at the end no app, no helper and no file of it is left.

Not the one of the tests, in which every call is watched for whether it blocks.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.wire import Connection
from tests.engine.node import processes_with
from tests.ports import free_port
from tests.waiting import eventually


@dataclass(frozen=True, slots=True)
class Agent:
    """A running agent: where it listens, and which process it is."""

    port: int
    pid: int


@contextmanager
def agent(folder: Path, docker_socket: str | None = None) -> Iterator[Agent]:
    """An agent with its defaults, but on loopback and, unless given an engine's socket, without Docker.

    Its own configuration file and a bare environment keep out what this machine is configured to.
    """
    work_dir, log, port = folder / "node", folder / "agent.log", free_port()
    docker = {"enabled": docker_socket is not None} | ({"socket_path": docker_socket} if docker_socket else {})
    config = folder / "agent.yaml"  # JSON is YAML
    config.write_text(json.dumps({"server": {"host": "127.0.0.1", "port": port}, "agent": {"work_dir": str(work_dir), "docker": docker}}))
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("AGENT_", "BOREAS_"))}
    command = [sys.executable, "-m", "boreas_agent", "--config", str(config)]
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C is for the benchmark, which then ends the agent in its own order
        ) as process,
    ):
        try:
            eventually(lambda: _ready(port, process), 30)
            try:
                yield Agent(port, process.pid)
            finally:
                _end(port, process, work_dir)
        except Exception as error:
            error.add_note(f"the end of the agent's log:\n{log.read_text(encoding='utf-8', errors='replace')[-2000:]}")
            raise
        finally:
            process.kill()


def _ready(port: int, process: subprocess.Popen[bytes]) -> bool:
    if process.poll() is not None:
        raise RuntimeError(f"the agent ended with {process.returncode} instead of starting")
    with suppress(ConnectionError), Connection(port) as connection:
        return connection.ask("GET", "/v1/ready")[0] == 200
    return False


def _end(port: int, process: subprocess.Popen[bytes], work_dir: Path) -> None:
    """Through the front door, so that containers and cgroups go as well."""
    with Connection(port) as connection:
        for app in connection.ask("GET", "/v1/status")[1]["apps"]:
            connection.ask("DELETE", f"/v1/apps/{app['app']}")
        eventually(lambda: connection.ask("GET", "/v1/status")[1]["apps"] == [], 60)
    process.terminate()
    process.wait(30)
    eventually(lambda: not processes_with(f"{work_dir}/"), 30)
