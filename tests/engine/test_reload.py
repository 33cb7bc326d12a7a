"""Files whose change a running app is told of by a signal, on a real agent: with processes, and with containers of a real engine."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import pydoc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from boreas_agent.errors import Transient
from boreas_agent.model import Phase
from tests.contract.labs import DockerLab, ProcessLab
from tests.engine.engine import Engine
from tests.engine.node import Node, running_node
from tests.engine.processes import ground
from tests.engine.test_scenarios_docker import box
from tests.waiting import eventually

QUICK: dict[str, Any] = {
    "rollout": {"min_healthy_seconds": 0.3, "watch_seconds": 3},
    "restart": {"initial_delay_seconds": 0.2, "max_delay_seconds": 0.5},
    "stop": {"grace_seconds": 1},
}
LINE = """
read_conf() { c=$(cat conf/app.ini); echo "$1 $c"; if [ "$c" = bad ]; then exit 9; fi; }
trap 'read_conf told' HUP
trap 'echo usr1' USR1
trap 'exit 0' TERM
read_conf began
while :; do sleep 0.05; done
"""


@dataclass
class Place:
    """One kind of app: its pkg, and what it has said."""

    node: Node
    pkg: Callable[..., dict[str, Any]]
    path: str
    kill: Callable[[], None]

    def apply(self, content: str | None, version: str = "v1", **more: Any) -> int:
        file: dict[str, Any] = {"path": self.path, "on_change": "signal"}
        file |= more.pop("file", {}) | ({} if content is None else {"content": content})
        answer = self.node.apply("web", version, **{**self.pkg(**QUICK), "files": [file], **more})
        return int(answer["revision"])

    def said(self, replica: int = 0) -> list[str]:
        return self.node.boreas("logs", "web", "--replica", str(replica), "--stream", "stdout").stdout.splitlines()

    def hears(self, *lines: str, replica: int = 0) -> None:
        eventually(lambda: self.said(replica) == list(lines), 20)

    def says_last(self, line: str) -> None:
        """What a container that is gone has said went with it."""
        eventually(lambda: self.said()[-1:] == [line], 20)


@pytest.fixture(params=["binary", pytest.param("docker", marks=pytest.mark.docker)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "binary":
        with running_node(tmp_path / "node") as node:
            pkg: Callable[..., dict[str, Any]] = lambda **more: {"type": "binary", "command": ["/bin/sh", "-c", LINE], **more}  # noqa: E731
            yield Place(node, pkg, "conf/app.ini", lambda: os.kill(node.pid("web"), 9))
    else:
        engine: Engine = request.getfixturevalue("clean_engine")
        with running_node(tmp_path / "node", engine.socket) as node:
            pkg = lambda **more: box(engine, command=["/bin/sh", "-c", f"cd /etc/app{LINE}"], **more)  # noqa: E731
            yield Place(node, pkg, "/etc/app/conf/app.ini", lambda: kill(engine))


def kill(engine: Engine) -> None:
    (one,) = engine.client.containers(filters={"label": ["boreas.app=web"]})
    engine.client.kill(one["Id"], "SIGKILL")


def test_a_running_app_is_told_of_the_new_content_and_neither_it_nor_the_next_agent_starts_it_again(place: Place) -> None:
    place.apply("one")
    place.node.reaches("web", "running", revision=1)
    assert place.apply("a much longer content") == 2
    place.node.reaches("web", "running", revision=2)
    place.hears("began one", "told a much longer content")
    assert place.apply("2") == 3
    place.node.reaches("web", "running", revision=3)
    place.node.restart()
    shown = place.node.reaches("web", "running", revision=3)
    assert shown["restarts"] == 0
    place.hears("began one", "told a much longer content", "told 2")
    assert place.node.exits("web") == []
    told = [line for line in place.node.events("web") if line.startswith("Reloaded")]
    assert told[0] == "Reloaded: wrote the files of web.1.0 anew and sent it SIGHUP: revision 2 (v1) wants it"
    assert len(told) == 2
    assert [row[0] for row in place.node.sql("SELECT outcome FROM v_deployments WHERE app = 'web' ORDER BY id")] == ["succeeded"] * 3


def test_what_dies_after_it_was_told_begins_again_with_the_new_content(place: Place) -> None:
    place.apply("one")
    place.node.reaches("web", "running", revision=1)
    place.apply("two")
    place.hears("began one", "told two")
    place.node.reaches("web", "running", revision=2)
    place.kill()
    place.hears("began one", "told two", "began two")
    eventually(lambda: len(place.node.exits("web")) == 1)
    assert place.node.reaches("web", "running", revision=2)["restarts"] == 1


def test_a_content_that_the_app_dies_of_is_taken_back(place: Place) -> None:
    place.apply("one")
    place.node.reaches("web", "running", revision=1)
    place.apply("bad")
    shown = place.node.reaches("web", "degraded", revision=2)
    assert "exited with code 9" in shown["blocked"]["reason"]
    place.says_last("began one")
    assert (None, 0, 9) in place.node.sql("SELECT signal, replica, exit_code FROM v_exits WHERE app = 'web'")
    place.node.reaches("web", "degraded", revision=2)
    assert place.apply("three") == 3
    place.node.reaches("web", "running", revision=3)
    place.says_last("told three")


def test_a_content_that_cannot_be_had_touches_nothing(place: Place, tmp_path: Path) -> None:
    place.apply("one")
    place.node.reaches("web", "running", revision=1)
    missing = tmp_path / "missing"
    place.apply(None, file={"content_from": str(missing)})
    shown = place.node.reaches("web", "degraded", revision=2)
    assert f"content_from: {missing} does not exist; create it on this node" in shown["blocked"]["reason"]
    missing.write_text("two")
    place.node.request("POST", "/v1/apps/web/restart")
    place.node.reaches("web", "running", revision=3)
    place.says_last("began two")


def test_each_replica_is_told_in_its_turn_and_of_another_signal_if_that_is_wanted(place: Place) -> None:
    place.apply("one", replicas=2, file={"signal": "SIGUSR1"})
    place.node.reaches("web", "running", revision=1)
    place.apply("two", replicas=2, file={"signal": "USR1"})
    place.node.reaches("web", "running", revision=2)
    for replica in (0, 1):
        place.hears("began one", "usr1", replica=replica)
    told = [line.partition(" anew")[0] for line in place.node.events("web") if line.startswith("Reloaded")]
    assert told == ["Reloaded: wrote the files of web.1.0", "Reloaded: wrote the files of web.1.1"]


def test_another_version_replaces_it_all_the_same(place: Place) -> None:
    place.apply("one")
    place.node.reaches("web", "running", revision=1)
    place.apply("two", "v2")
    place.node.reaches("web", "running", revision=2)
    place.says_last("began two")


def test_a_plan_says_that_it_will_be_told(place: Place) -> None:
    place.apply("one")
    place.node.reaches("web", "running", revision=1)
    pkg = {**place.pkg(**QUICK), "files": [{"path": place.path, "content": "two", "on_change": "signal"}]}
    answer = place.node.request("POST", "/v1/plan", {"app": "web", "version": "v1", "pkg": pkg})[1]
    prepare, action = answer["actions"]
    assert (prepare["action"], prepare["instance"]) == ("prepare", "web.2.0")
    assert (action["action"], action["instance"], action["files"], action["signals"]) == ("reload", "web.1.0", [place.path], ["SIGHUP"])


# --- the drivers alone, cut short ----------------------------------------------------------------


@pytest.fixture(params=["binary", pytest.param("docker", marks=pytest.mark.docker)])
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ProcessLab | DockerLab]:
    if request.param == "docker":
        yield DockerLab(request.getfixturevalue("clean_engine"), request.getfixturevalue("docker_driver_factory"))
    else:
        with ground(tmp_path / "node") as made:
            yield ProcessLab(made, "binary")


CUTS = {
    "before the files": {"binary": ("drivers.folders", "note", 1), "docker": ("drivers.docker_files.Files", "_note", 1)},
    "among the files": {"binary": ("artifacts.releases", "_mark", 2), "docker": ("drivers.docker_files", "_mark", 3)},
    "after the signal": {"binary": ("drivers.folders", "note", 2), "docker": ("drivers.docker_files.Files", "_note", 2)},
}
"""Where the disk is full: in which call of what."""


@pytest.mark.parametrize("cut", CUTS)
def test_what_is_cut_short_is_nobody_s_until_it_is_told_again(
    lab: ProcessLab | DockerLab, cut: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, after = lab.telling("one"), lab.telling("two", revision=2)
    where, name, number = CUTS[cut][before.pkg.type]

    async def work() -> None:
        driver = lab.driver()
        await driver.open()
        await driver.prepare(before)
        await driver.start(before, 0)
        (seen,) = await driver.observe("web")
        with monkeypatch.context() as patched:
            real, calls = pydoc.locate(f"boreas_agent.{where}.{name}"), itertools.count(1)

            def full(*arguments: Any) -> Any:
                if next(calls) >= number:
                    raise OSError(errno.ENOSPC, "No space left on device")
                return real(*arguments)  # type: ignore[operator]

            patched.setattr(f"boreas_agent.{where}.{name}", full)
            with pytest.raises(Transient):
                await driver.prepare(after)
                await driver.reload(seen, after, ("SIGHUP",))
        await driver.close()
        driver = lab.driver()  # the next agent
        await driver.open()
        (left,) = await driver.observe("web")
        assert (left.hash, left.record) == ("" if number > 1 else before.hash, before.record)
        await driver.prepare(before)
        assert await driver.reload(left, before, ("SIGHUP",))
        (left,) = await driver.observe("web")
        assert (left.hash, left.record, left.phase) == (before.hash, before.record, Phase.RUNNING)
        written = [path for pattern in ("apps/web/releases/1/conf", "apps/web/files/1.*/0") for path in tmp_path.rglob(pattern)]
        assert [path.read_text() for path in written] == ["one"]
        await driver.stop(left, "SIGKILL", 0)
        await driver.remove(left)
        await driver.close()

    asyncio.run(work())
