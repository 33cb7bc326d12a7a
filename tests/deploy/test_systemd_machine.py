"""The Debian package and its unit on a machine that systemd runs: installed, used, upgraded, removed, purged."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from boreas_agent import __version__
from tests.deploy.conftest import VERSIONS, or_skip
from tests.deploy.machine import Machine, NotHere
from tests.waiting import eventually

WEB = """
app: web
version: v1
pkg: {type: binary, command: [/bin/sleep, "3600"], replicas: 2, rollout: {min_healthy_seconds: 0.2}}
---
app: hello
version: v1
pkg: {type: script, command: ["echo ran >> /root/ran"]}
"""
EDITED = "agent: {docker: {enabled: false}}\n"
UNIT = "boreas-agent.service"


@pytest.fixture
def boot(debian_root: Path, tmp_path: Path) -> Iterator[Callable[[str], Machine]]:
    """Boots a machine whose control groups are mounted as v1 or v2."""
    booted: list[Machine] = []

    def start(layout: str) -> Machine:
        try:
            booted.append(Machine(debian_root, layout, tmp_path / "console"))
        except NotHere as error:
            or_skip(error)
        return booted[-1]

    yield start
    for machine in booted:
        machine.close()


class Deployed:
    """The agent on a machine."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def unit(self, name: str) -> str:
        return self.machine.does("systemctl", "show", "--value", "--property", name, UNIT).strip()

    def apps(self) -> dict[str, Any]:
        """As status says; nothing while no agent answers."""
        done = self.machine.run("boreas-agent", "status", "-o", "json")
        return {app["app"]: app for app in json.loads(done.stdout)["apps"]} if done.returncode == 0 else {}

    def pids(self) -> list[int]:
        return [pid for pid, name in self.machine.processes().items() if name == "sleep"]

    def keepers(self) -> list[str]:
        return [path.name for path in self.machine.path("/var/lib/boreas-agent/keeper").glob("[!.]*.sock")]

    def groups_of(self, pid: int) -> str:
        return self.machine.does("cat", f"/proc/{pid}/cgroup")

    def versions(self) -> list[str]:
        asked = "select message from v_events where kind = 'AgentStarted' order by id"
        rows = json.loads(self.machine.does("boreas-agent", "sql", "-o", "json", asked))
        return [row["message"].split()[1] for row in rows]

    def serves(self) -> bool:
        return self.unit("ActiveState") == "active" and bool(self.apps())


def test_the_life_of_a_package_on_a_machine_with_cgroup_v2(boot: Callable[[str], Machine], packages: tuple[Path, Path]) -> None:
    machine = boot("v2")
    first, second = (machine.put(package) for package in packages)
    machine.does("dpkg", "--purge", "python3-venv", "python3.11-venv")  # not needed: the package brings its own
    node, pids = _installed(machine, first)
    keepers = node.keepers()
    _apps_are_no_part_of_the_unit(node, pids)
    _what_systemctl_does_leaves_them_alone(node, pids)
    _an_agent_that_hangs_is_started_anew(node, pids)

    machine.does("dpkg", "--install", second)
    eventually(node.serves, 20)
    assert (node.pids(), node.keepers()) == (pids, keepers)
    assert machine.does("dpkg-query", "-W", "-f", "${Version}", "boreas-agent") == VERSIONS[1]

    machine.does("dpkg", "--remove", "boreas-agent")
    assert node.pids() == pids
    assert not machine.path("/usr/lib/boreas-agent").exists()
    machine.does("dpkg", "--install", second)
    eventually(node.serves, 20)
    assert (node.pids(), node.apps()["web"]["restarts"]) == (pids, 0)
    assert machine.path("/etc/boreas-agent/agent.yaml").read_text() == EDITED
    _purged(node)


def test_apps_outlive_the_agent_on_a_machine_with_cgroup_v1_too(boot: Callable[[str], Machine], packages: tuple[Path, Path]) -> None:
    machine = boot("v1")
    node, pids = _installed(machine, machine.put(packages[0]))
    _apps_are_no_part_of_the_unit(node, pids)
    _what_systemctl_does_leaves_them_alone(node, pids)
    _purged(node)


def _installed(machine: Machine, package: str) -> tuple[Deployed, list[int]]:
    machine.does("dpkg", "--install", package)
    node = Deployed(machine)
    assert (node.unit("ActiveState"), node.unit("UnitFileState")) == ("active", "enabled")
    assert machine.does("systemd-analyze", "verify", "--man=no", f"/lib/systemd/system/{UNIT}") == ""
    assert machine.does("operator-pm-agent", "--version") == f"boreas-agent {__version__}\n"
    machine.path("/root/apps.yaml").write_text(WEB)
    machine.does("boreas-agent", "apply", "-f", "/root/apps.yaml", "--timeout", "30")
    eventually(lambda: node.unit("StatusText") == "2 of 2 apps healthy; listening on 0.0.0.0:8081", 20)
    pids = node.pids()
    assert (len(pids), len(node.keepers())) == (2, 1)
    return node, pids


def _apps_are_no_part_of_the_unit(node: Deployed, pids: list[int]) -> None:
    keeper = node.keepers()[0].split(".")[1]
    for pid in (*pids, int(keeper)):
        assert "0::/boreas.slice/" in node.groups_of(pid)
    members = node.machine.does("systemctl", "status", "--no-pager", "--full", UNIT)
    assert "sleep" not in members
    assert "keeper" not in members.split("CGroup:")[1].splitlines()[1]


def _what_systemctl_does_leaves_them_alone(node: Deployed, pids: list[int]) -> None:
    machine = node.machine
    machine.does("systemctl", "restart", UNIT)
    eventually(node.serves)
    machine.does("systemctl", "daemon-reload")

    agent = node.unit("MainPID")
    machine.path("/etc/boreas-agent/agent.yaml").write_text("log: {level: nonsense}\n")
    machine.does("systemctl", "reload", UNIT)
    eventually(lambda: "log.level must be" in node.unit("StatusText"))
    machine.path("/etc/boreas-agent/agent.yaml").write_text(EDITED)
    machine.does("systemctl", "reload", UNIT)
    eventually(lambda: "only a restart of the agent changes agent.docker.enabled" in node.unit("StatusText"))
    assert node.unit("MainPID") == agent

    machine.does("sh", "-c", f"kill -KILL {agent}")
    eventually(lambda: node.unit("MainPID") not in {"0", agent} and node.serves(), 20)
    machine.does("systemctl", "stop", UNIT)
    assert node.unit("ActiveState") == "inactive"
    assert node.pids() == pids
    machine.does("systemctl", "start", UNIT)
    assert (node.pids(), node.apps()["web"]["restarts"], node.apps()["web"]["status"]) == (pids, 0, "running")
    assert machine.does("cat", "/root/ran") == "ran\n"


def _an_agent_that_hangs_is_started_anew(node: Deployed, pids: list[int]) -> None:
    machine = node.machine
    machine.does("systemctl", "stop", UNIT)
    machine.path(f"/etc/systemd/system/{UNIT}.d").mkdir()
    machine.path(f"/etc/systemd/system/{UNIT}.d/quick.conf").write_text("[Service]\nWatchdogSec=3\n")
    machine.does("systemctl", "daemon-reload")
    machine.does("systemctl", "start", UNIT)
    agent = node.unit("MainPID")
    machine.does("sh", "-c", f"kill -STOP {agent}")
    eventually(lambda: node.unit("MainPID") not in {"0", agent} and node.serves(), 30)
    assert node.pids() == pids
    machine.path(f"/etc/systemd/system/{UNIT}.d/quick.conf").unlink()
    machine.does("systemctl", "daemon-reload")


def _purged(node: Deployed) -> None:
    machine = node.machine
    machine.does("dpkg", "--purge", "boreas-agent")
    assert not {"sleep", "boreas-keeper", "boreas-agent"} & set(machine.processes().values())
    folders = ("/var/lib/boreas-agent", "/etc/boreas-agent", "/usr/lib/boreas-agent")
    for left in (*folders, "/usr/bin/boreas-agent", f"/lib/systemd/system/{UNIT}", f"/etc/systemd/system/multi-user.target.wants/{UNIT}"):
        assert not machine.path(left).exists()
    assert not list(machine.path("/sys/fs/cgroup").glob("**/boreas.slice"))
