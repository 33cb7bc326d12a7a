"""A real agent as a subprocess, and the ways in which its users look at it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.ports import free_port
from tests.waiting import eventually


class Node:
    """One work dir and the agent on it; the agent may be stopped, killed and started again."""

    def __init__(self, work_dir: Path, docker_socket: str | None = None, **environment: str) -> None:
        self.work_dir = work_dir
        self.port = free_port()
        docker = {"AGENT_DOCKER_SOCKET_PATH": docker_socket} if docker_socket else {"AGENT_DOCKER_ENABLED": "false"}
        self._environment = os.environ | docker | environment
        self.program: tuple[str, ...] = (sys.executable, "-m", "tests.engine.guarded_agent")
        self.arguments: tuple[str, ...] = ()
        """Further arguments of the agent, from its next start on."""
        self.process: subprocess.Popen[bytes] | None = None

    # --- the agent's life ------------------------------------------------------------------------

    def start(self, *, wait: bool = True) -> None:
        """Start it and wait until it has looked at everything once."""
        log = self.work_dir.with_suffix(".log").open("ab")
        with log:
            self.process = subprocess.Popen(
                [
                    *self.program,
                    "--work-dir",
                    str(self.work_dir),
                    "--host",
                    "127.0.0.1",
                    "--port",
                    str(self.port),
                    *self.arguments,
                ],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        if wait:
            eventually(lambda: self.get("/v1/ready")[0] == 200, 30)

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def restart(self) -> None:
        """Kill it and start its successor."""
        self.kill()
        self.start()

    # --- the API ---------------------------------------------------------------------------------

    def request(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Status code and decoded body; (0, None) where nobody answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            data = None if body is None and method == "GET" else json.dumps(body if body is not None else {})
            connection.request(method, path, data, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text else None
        except (ConnectionError, http.client.HTTPException):
            return 0, None
        finally:
            connection.close()

    def get(self, path: str) -> tuple[int, Any]:
        """GET."""
        return self.request("GET", path)

    def apply(self, app: str, version: str = "v1", **pkg: Any) -> dict[str, Any]:
        """Submit; must be accepted."""
        status, answer = self.request("POST", "/v1/apply", {"app": app, "version": version, "pkg": pkg})
        assert status == 200, answer
        return dict(answer)

    def status(self, app: str) -> dict[str, Any]:
        """The status object; an empty one where there is no such app."""
        code, answer = self.get(f"/v1/status/{app}")
        return dict(answer) if code == 200 else {}

    def reaches(self, app: str, status: str, seconds: float = 30.0, revision: int | None = None) -> dict[str, Any]:
        """Wait for a status word, of a certain revision where one is given; the whole status object."""

        def there() -> dict[str, Any] | None:
            seen = self.status(app)
            fits = seen.get("status") == status and revision in (None, seen.get("revision"))
            return seen if fits else None

        try:
            found = eventually(there, seconds)
        except AssertionError:
            raise AssertionError(
                f"{app} did not become {status} within {seconds:g} s: {self.status(app)} {self.events(app)[-12:]}"
            ) from None
        assert found is not None
        return found

    # --- the database ----------------------------------------------------------------------------

    def sql(self, query: str, *args: object) -> list[tuple[Any, ...]]:
        """Read the history as anybody may."""
        with contextlib.closing(sqlite3.connect(f"file:{self.work_dir}/agent.db?mode=ro", uri=True)) as database:
            return database.execute(query, args).fetchall()

    def write_sql(self, statement: str) -> None:
        """Make the database of a stopped agent other than it was."""
        with contextlib.closing(sqlite3.connect(self.work_dir / "agent.db")) as database, database:
            database.execute(statement)

    def boreas(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command against this agent to its end."""
        command = [sys.executable, "-m", "boreas_agent", *arguments, "--url", f"http://127.0.0.1:{self.port}"]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def events(self, app: str) -> list[str]:
        """The app's events, oldest first."""
        return [f"{kind}: {message}" for kind, message in self.sql("SELECT kind, message FROM v_events WHERE app = ? ORDER BY id", app)]

    def exits(self, app: str) -> list[tuple[Any, ...]]:
        """(replica, code, signal, reason) of every ended run, oldest first."""
        return self.sql("SELECT replica, exit_code, signal, reason FROM v_exits WHERE app = ? ORDER BY exited_at", app)

    # --- processes -------------------------------------------------------------------------------

    def claim(self, app: str, replica: int = 0) -> dict[str, Any]:
        """The newest claim of a replica: who it is."""
        claims = list((self.work_dir / "apps" / app / "instances").glob(f"*.{replica}/*.claim"))
        newest = max(claims, key=lambda path: (int(path.parent.name.split(".")[0]), int(path.stem)))
        return dict(json.loads(newest.read_text()))

    def pid(self, app: str, replica: int = 0) -> int:
        """The pid of the replica's main process."""
        return int(self.claim(app, replica)["pid"])

    def keepers(self) -> list[int]:
        """The pids of this node's keepers (by their command line, which names the folder)."""
        return [pid for pid in _pids() if str(self.work_dir / "keeper").encode() in _cmdline(pid) and pid != os.getpid()]

    def clean_up(self) -> None:
        """Remove every app, stop the agent, and see that nothing is left of either."""
        if self.process is None:
            return
        if self.process.poll() is not None:
            self.start()
        eventually(lambda: self.get("/v1/ready")[0] == 200, 30)
        for app in [one["app"] for one in self.get("/v1/status")[1]["apps"]]:
            self.request("POST", f"/v1/apps/{app}/release")
            self.request("DELETE", f"/v1/apps/{app}")
        eventually(lambda: self.get("/v1/status")[1]["apps"] == [], 60)
        self.stop()
        eventually(lambda: not self.keepers(), 15)
        assert "BlockingError" not in self.work_dir.with_suffix(".log").read_text(), "the agent blocked its event loop; its log says where"


@contextmanager
def running_node(
    work_dir: Path, docker_socket: str | None = None, module: str = "tests.engine.guarded_agent", **environment: str
) -> Iterator[Node]:
    """A started agent (``module``) on a fresh work dir; at the end everything of it is gone."""
    node = Node(work_dir, docker_socket, **environment)
    node.program = (sys.executable, "-m", module)
    node.start()
    try:
        yield node
    finally:
        node.clean_up()


def alive(pid: int) -> bool:
    """The process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def processes_with(marker: str) -> list[int]:
    """The pids of all living processes that have ``marker`` on their command line or in their environment."""
    return [pid for pid in _pids() if alive(pid) and (marker.encode() in _cmdline(pid) or marker.encode() in _environ(pid))]


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _cmdline(pid: int) -> bytes:
    return _read(Path(f"/proc/{pid}/cmdline"))


def _environ(pid: int) -> bytes:
    return _read(Path(f"/proc/{pid}/environ"))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
