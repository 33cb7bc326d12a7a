"""Hooks of a real agent, beside real processes and real containers alike."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engine.engine import Engine
from tests.engine.node import Node, alive, processes_with, running_node
from tests.waiting import eventually

QUICK: dict[str, Any] = {"rollout": {"min_healthy_seconds": 0.3}, "restart": {"initial_delay_seconds": 0.1}, "stop": {"grace_seconds": 5}}
PROGRAM = 'trap "say got TERM; exit 0" TERM; say runs; while true; do sleep 0.05; done'
SAY = 'say() { echo "$BOREAS_VERSION $*" >> "$DIARY"; }; '


class Ground:
    """One node and one kind of app on it, whose programs and hooks write into one diary."""

    kind: str

    def __init__(self, node: Node, folder: Path, engine: Engine | None) -> None:
        self.node = node
        self.engine = engine
        self.kind = "binary" if engine is None else "docker"
        self.diary = folder / "diary"
        self.diary.touch()

    def pkg(self, version: str, program: str = PROGRAM, **hooks: Any) -> dict[str, Any]:
        environment = {"DIARY": str(self.diary), "BOREAS_VERSION": version, "MARKER": str(self.diary)}
        asked = {kind: hook if isinstance(hook, dict) else self.hook(hook) for kind, hook in hooks.items()}
        pkg: dict[str, Any] = {"type": self.kind, "command": self.shell(program), "environment": environment, "hooks": asked, **QUICK}
        if self.engine is not None:
            pkg |= {"image": self.engine.image, "volumes": [{"host_path": str(self.diary), "container_path": str(self.diary)}]}
        return pkg

    def shell(self, line: str) -> list[str]:
        return ["/bin/sh", "-c", SAY + line]

    def hook(self, line: str, seconds: float = 20) -> dict[str, Any]:
        return {"exec": {"command": self.shell(line)}, "timeout_seconds": seconds}

    def apply(self, version: str, **more: Any) -> None:
        self.node.apply("web", version, **self.pkg(version, **more))

    def lines(self) -> list[str]:
        return self.diary.read_text().splitlines()

    def writes(self, line: str) -> None:
        eventually(lambda: line in self.lines(), 30)

    def identity(self) -> str:
        """What tells the running instance from any other."""
        if self.engine is None:
            return str(self.node.pid("web"))
        (one,) = [one for one in self.containers() if "boreas.hook" not in one["Labels"]]
        return str(one["Id"])

    def containers(self) -> list[dict[str, Any]]:
        assert self.engine is not None
        return list(self.engine.client.containers(all=True, filters={"label": "boreas.app=web"}))

    def nothing_of_a_hook_is_left(self, line: str) -> None:
        eventually(lambda: not [pid for pid in processes_with(line) if alive(pid)], 20)
        if self.engine is not None:
            eventually(lambda: not [one for one in self.containers() if "boreas.hook" in one["Labels"]], 20)

    def happened(self) -> list[str]:
        return [event for event in self.node.events("web") if not event.startswith(("Ready", "Applied", "Fetching"))]


@pytest.fixture(params=["binary", pytest.param("docker", marks=pytest.mark.docker)])
def ground(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ground]:
    engine = request.getfixturevalue("clean_engine") if request.param == "docker" else None
    with running_node(tmp_path / "node", engine.socket if engine else None) as node:
        yield Ground(node, tmp_path, engine)


def serving(ground: Ground, **hooks: Any) -> str:
    """v1 runs; who it is."""
    ground.apply("v1", **hooks)
    ground.node.reaches("web", "running")
    return ground.identity()


def test_every_hook_runs_in_its_place_and_the_app_sees_the_signal_after_its_pre_stop(ground: Ground) -> None:
    hooks = {"pre_start": "say migrates", "post_start": "say warms up", "pre_stop": "say says goodbye; sleep 0.2; say is ready to go"}
    serving(ground, **hooks)
    ground.apply("v2", **hooks)
    ground.node.reaches("web", "running", revision=2)
    ground.writes("v1 got TERM")
    assert set(ground.lines()[:3]) == {"v1 migrates", "v1 runs", "v1 warms up"}
    assert ground.lines()[0] == "v1 migrates"
    assert ground.lines()[3:7] == ["v2 migrates", "v1 says goodbye", "v1 is ready to go", "v1 got TERM"]
    assert set(ground.lines()[7:]) == {"v2 runs", "v2 warms up"}
    kinds = [event.partition(":")[0] for event in ground.happened()]
    assert [kind for kind in kinds if kind not in {"Removed", "Exited"}] == [
        "PreStartSucceeded",
        "Started",
        "PostStartSucceeded",
        "DeploymentSucceeded",
        "PreStartSucceeded",
        "PreStopSucceeded",
        "Stopped",
        "Started",
        "PostStartSucceeded",
        "DeploymentSucceeded",
    ]
    ground.node.request("DELETE", "/v1/apps/web")
    eventually(lambda: not ground.node.status("web"), 30)
    assert ground.lines()[-3:] == ["v2 says goodbye", "v2 is ready to go", "v2 got TERM"]


@pytest.mark.parametrize(
    ("hook", "seconds", "why"),
    [
        ("say tries; echo no such table >&2; exit 3", 20, "the command exited with code 3: no such table"),
        ("echo half done; exec sleep 1000077", 0.5, "the command did not end within 0.5 s: half done"),
        ("", 20, "cannot execute"),
    ],
    ids=["fails", "hangs", "is not there"],
)
def test_a_failing_pre_start_leaves_the_old_one_untouched(ground: Ground, hook: str, seconds: float, why: str) -> None:
    before = serving(ground, pre_stop="say goes")
    failing = ground.hook(hook, seconds) if hook else {"exec": {"command": ["/no/such/program"]}}
    ground.apply("v2", pre_start=failing)
    shown = ground.node.reaches("web", "degraded")
    assert f"pre_start hook failed: {why}" in shown["blocked"]["reason"]
    eventually(lambda: ground.node.status("web")["healthy"]["level"] == 70)
    assert (ground.identity(), ground.node.status("web")["running_version"]) == (before, "v1")
    assert ground.lines() == ["v1 runs"] + ["v2 tries"] * hook.startswith("say")
    assert ground.node.apply("web", "v2", **ground.pkg("v2", pre_start=failing))["changed"] is False
    told = ["PreStartFailed", "DeploymentFailed", "RolledBack"]
    eventually(lambda: [event.partition(":")[0] for event in ground.happened()][-3:] == told)
    ground.nothing_of_a_hook_is_left("1000077")


def test_status_says_while_a_hook_takes_long_and_another_app_waits_for_nobody(ground: Ground) -> None:
    ground.apply("v1", pre_start="exec sleep 1000078", post_start="true")
    eventually(lambda: ground.node.status("web")["healthy"]["msg"] == "running pre_start hook", 20)
    assert ground.node.status("web")["healthy"]["level"] < 50
    began = time.monotonic()
    ground.node.apply("other", "v1", **ground.pkg("v1"))
    ground.node.reaches("other", "running")
    assert time.monotonic() - began < 10
    ground.apply("v2", pre_start="true", post_start="exec sleep 1000079")  # supersedes what runs
    ground.nothing_of_a_hook_is_left("1000078")
    eventually(lambda: ground.node.status("web")["healthy"]["msg"] == "running post_start hook", 20)
    assert ground.node.status("web")["healthy"]["level"] == 20
    ground.apply("v3")
    ground.node.reaches("web", "running", revision=3)
    ground.nothing_of_a_hook_is_left("1000079")


def test_a_failing_post_start_restarts_with_the_hook_as_the_cause(ground: Ground) -> None:
    ground.apply(
        "v1", post_start='test -e "$DIARY.ok" || { echo not warm; exit 4; }' if ground.kind == "binary" else "echo not warm; exit 4"
    )
    eventually(lambda: ground.node.status("web").get("healthy", {}).get("level") == 0, 30)
    assert "crash-looping: post_start hook failed: the command exited with code 4: not warm" in ground.node.status("web")["healthy"]["msg"]
    assert ground.node.exits("web")[0][3] == "stopped: post_start hook failed: the command exited with code 4: not warm"
    if ground.kind == "binary":
        Path(f"{ground.diary}.ok").touch()
        ground.node.reaches("web", "running")


def test_what_ends_by_itself_during_its_post_start_is_told_as_such_and_has_no_pre_stop(ground: Ground) -> None:
    ground.apply("v1", program="say runs; sleep 0.5; exit 5", post_start="exec sleep 1000080", pre_stop="say goes")
    eventually(lambda: ground.node.exits("web"), 30)
    first = ground.node.exits("web")[0]
    assert (first[1], first[3]) == (5, "")
    assert "v1 goes" not in ground.lines()
    ground.node.request("DELETE", "/v1/apps/web")
    eventually(lambda: not ground.node.status("web"), 30)
    ground.nothing_of_a_hook_is_left("1000080")


def test_a_pre_stop_that_hangs_has_its_own_time_and_then_the_signal_comes(ground: Ground) -> None:
    serving(ground, pre_stop=ground.hook("say hangs; exec sleep 1000082", 1))
    began = time.monotonic()
    ground.node.request("DELETE", "/v1/apps/web")
    eventually(lambda: not ground.node.status("web"), 30)
    assert 1 <= time.monotonic() - began < 10
    assert ground.lines() == ["v1 runs", "v1 hangs", "v1 got TERM"]
    (told,) = [event for event in ground.happened() if event.startswith("PreStop")]
    assert told == "PreStopFailed: web.1.0: pre_stop hook failed: the command did not end within 1 s; it is stopped all the same"
    ground.nothing_of_a_hook_is_left("1000082")


@pytest.mark.parametrize("kind", ["pre_start", "post_start", "pre_stop"])
def test_an_agent_killed_during_a_hook_leaves_nothing_of_it_and_its_successor_runs_it_again(ground: Ground, kind: str) -> None:
    line = f'say begins {kind}; test "$(grep -c begins "$DIARY")" -gt 1 || exec sleep 1000083'
    before = serving(ground, **{kind: line} if kind == "pre_stop" else {})
    ground.apply("v2", **{kind: line} if kind != "pre_stop" else {})
    whose = "v1" if kind == "pre_stop" else "v2"
    ground.writes(f"{whose} begins {kind}")
    eventually(lambda: processes_with("1000083"), 20)
    if kind != "post_start":
        assert ground.identity() == before
    ground.node.restart()
    ground.nothing_of_a_hook_is_left("1000083")
    ground.node.reaches("web", "running", revision=2)
    assert ground.lines().count(f"{whose} begins {kind}") == 2
    assert ground.lines().count("v2 runs") == 1


def test_a_plan_lists_the_hooks(ground: Ground) -> None:
    serving(ground, pre_stop="say goes")
    pkg = ground.pkg("v2", pre_start="say migrates", post_start="say warms up")
    status, answer = ground.node.request("POST", "/v1/plan", {"app": "web", "version": "v2", "pkg": pkg})
    assert status == 200
    assert [one["action"] for one in answer["actions"]] == ["pre_start", "pre_stop", "stop", "start", "post_start", "remove"]
    assert answer["actions"][0]["timeout_seconds"] == 20
    assert ground.lines() == ["v1 runs"]
