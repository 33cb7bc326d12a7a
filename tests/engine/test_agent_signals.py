"""What the service manager and a SIGHUP see of a real agent."""

from __future__ import annotations

import json
import os
import signal
import socket
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.engine.node import Node
from tests.waiting import eventually

CHANGED = """
log: {level: debug, format: text}
server: {trusted_networks: [10.9.9.0/24]}
agent: {resync_interval: 5, history: {days: 3}}
"""


class Manager:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self.heard: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self._socket.setblocking(False)

    def hears(self, word: str, times: int = 1) -> bool:
        try:
            while True:
                self.heard += self._socket.recv(65536).decode().splitlines()
        except BlockingIOError:
            return sum(line.startswith(word) for line in self.heard) >= times

    def forget(self) -> None:
        self.hears("")
        self.heard.clear()

    def close(self) -> None:
        self._socket.close()


@contextmanager
def started(work_dir: Path, *arguments: str, **environment: str) -> Iterator[Node]:
    node = Node(work_dir, **environment)
    node.arguments = arguments
    node.start()
    try:
        yield node
    finally:
        node.clean_up()


def logged(node: Node) -> list[dict[str, object]]:
    lines = node.work_dir.with_suffix(".log").read_text().splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def hang_up(node: Node) -> None:
    assert node.process is not None
    os.kill(node.process.pid, signal.SIGHUP)


@pytest.mark.parametrize("abstract", [False, True], ids=["path", "abstract"])
def test_the_service_manager_hears_ready_signs_of_life_reloads_and_the_end(tmp_path: Path, abstract: bool) -> None:
    address = f"@boreas-test-{uuid.uuid4()}" if abstract else str(tmp_path / "notify")
    with closing(Manager(address)) as manager, started(tmp_path / "node", NOTIFY_SOCKET=address, WATCHDOG_USEC="900000") as node:
        eventually(lambda: manager.hears("READY=1"))
        assert not manager.hears("WATCHDOG=1", 50)
        eventually(lambda: manager.hears("WATCHDOG=1", 3))
        assert f"STATUS=0 of 0 apps healthy; listening on 127.0.0.1:{node.port}" in manager.heard

        manager.forget()
        node.apply("web", type="binary", command=["/bin/sleep", "3600"], rollout={"min_healthy_seconds": 0.1})
        eventually(lambda: manager.hears("STATUS=1 of 1 apps healthy"))
        environment = Path(f"/proc/{node.pid('web')}/environ").read_bytes()
        assert b"NOTIFY_SOCKET" not in environment
        assert b"WATCHDOG" not in environment

        manager.forget()
        hang_up(node)
        eventually(lambda: manager.hears("READY=1"))
        assert manager.heard.index("RELOADING=1") < manager.heard.index("READY=1")
        manager.forget()
        assert node.stop() == 0
        eventually(lambda: manager.hears("STOPPING=1"))


def test_a_stopped_event_loop_gives_no_sign_of_life(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with closing(Manager(address)) as manager, started(tmp_path / "node", NOTIFY_SOCKET=address, WATCHDOG_USEC="300000") as node:
        eventually(lambda: manager.hears("WATCHDOG=1"))
        assert node.process is not None
        node.process.send_signal(signal.SIGSTOP)
        eventually(lambda: Path(f"/proc/{node.process.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T")  # type: ignore[union-attr]
        manager.forget()
        try:
            with pytest.raises(AssertionError):
                eventually(lambda: manager.hears("WATCHDOG=1"), 1)
        finally:
            node.process.send_signal(signal.SIGCONT)
        eventually(lambda: manager.hears("WATCHDOG=1"))


def test_sighup_changes_what_can_change_and_names_what_cannot(tmp_path: Path) -> None:
    file = tmp_path / "agent.yaml"
    file.write_text("log: {level: info}\n")
    with started(tmp_path / "node", "--config", str(file)) as node:
        node.apply("web", type="binary", command=["/bin/sleep", "3600"], rollout={"min_healthy_seconds": 0.1})
        node.reaches("web", "running")
        pid = node.pid("web")
        file.write_text(CHANGED)
        hang_up(node)
        try:
            eventually(lambda: node.request("POST", "/v1/undrain")[0] == 403)
            (told,) = eventually(lambda: node.sql("SELECT message FROM v_events WHERE kind = 'Reloaded'"))
            assert told == (
                "the configuration was read again; changed: server.trusted_networks, log.level, log.format, agent.resync_interval; "
                "only a restart of the agent changes agent.history.days",
            )
            eventually(lambda: "keys=agent.history.days" in node.work_dir.with_suffix(".log").read_text())
            assert (node.status("web")["restarts"], node.pid("web")) == (0, pid)
        finally:
            file.write_text("log: {level: info}\n")
            hang_up(node)
            eventually(lambda: node.request("POST", "/v1/undrain")[0] == 200)


def test_sighup_with_a_wrong_file_keeps_the_old_configuration_and_says_why(tmp_path: Path) -> None:
    file = tmp_path / "agent.yaml"
    file.write_text("log: {level: info}\n")
    with started(tmp_path / "node", "--config", str(file)) as node:
        file.write_text("log: {level: debug}\nserver: {trusted_network: [10.9.9.0/24]}\n")
        hang_up(node)
        (told,) = eventually(lambda: node.sql("SELECT message FROM v_events WHERE kind = 'ReloadFailed'"))
        assert told == (
            f"the configuration is wrong, the old one stays in force: {file}: unknown key server.trusted_network; "
            "did you mean server.trusted_networks?",
        )
        assert node.request("POST", "/v1/undrain")[0] == 200
        assert not any(line["level"] == "debug" for line in logged(node))
