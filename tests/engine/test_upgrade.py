"""Another version of the agent takes over a work dir: a non-event for everything that runs."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.engine.engine import SERVE, Engine
from tests.engine.installation import environment, previous_source, this_source, wheel
from tests.engine.node import Node, alive
from tests.waiting import eventually

OLD_VERSION = "0.0.9"
QUICK = {"rollout": {"min_healthy_seconds": 0.2}, "stop": {"grace_seconds": 0.5}}
BINARY = {"type": "binary", "command": ["/bin/sleep", "3600"], "replicas": 2, **QUICK}


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of the version before. Its keeper is made another one, so that two versions of it meet in any case."""
    folder = tmp_path_factory.mktemp("before")
    source, name = previous_source(folder / "source")
    print(f"the version before is {name}")
    package = source / "boreas_agent"
    (package / "__init__.py").write_text(f'"""An older version."""\n\n__version__ = "{OLD_VERSION}"\n')
    with (package / "keeper" / "__init__.py").open("a") as keeper:
        keeper.write("\n# an older keeper\n")
    return environment(folder / "venv", wheel(source, folder / "dist"))


@pytest.fixture(scope="module")
def now(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of this version."""
    folder = tmp_path_factory.mktemp("now")
    return environment(folder / "venv", wheel(this_source(folder / "source"), folder / "dist"))


@pytest.fixture
def node(tmp_path: Path, before: Path) -> Iterator[Node]:
    with _run_by(Node(tmp_path / "node"), before) as started:
        yield started


@contextmanager
def _run_by(node: Node, python: Path) -> Iterator[Node]:
    node.program = (str(python), "-I", "-m", "boreas_agent")
    node.start()
    try:
        yield node
    finally:
        node.clean_up()


def switch(node: Node, python: Path) -> None:
    """End the agent as an upgrade does, and start the other version."""
    assert node.stop() == 0
    node.program = (str(python), "-I", "-m", "boreas_agent")
    node.start()


def started_versions(node: Node) -> list[str]:
    return [message.split()[1] for (message,) in node.sql("SELECT message FROM v_events WHERE kind = 'AgentStarted' ORDER BY id")]


def keepers(node: Node) -> set[int]:
    """The pids of the keepers that can be asked for something."""
    return {int(path.name.split(".")[1]) for path in (node.work_dir / "keeper").glob("[!.]*.sock")}


def how_it_is(node: Node, *apps: str) -> dict[str, Any]:
    keys = ("version", "status", "healthy", "updated", "revision", "restarts")
    return {app: [node.status(app)[key] for key in keys] for app in apps}


def test_both_versions_are_what_they_say(before: Path, now: Path) -> None:
    def version(python: Path) -> str:
        return subprocess.run([python, "-I", "-m", "boreas_agent", "--version"], capture_output=True, text=True, check=True).stdout

    assert version(before) == f"boreas-agent {OLD_VERSION}\n"
    assert version(now) not in {"", version(before)}


def test_an_upgrade_restarts_nothing_and_the_old_keeper_ends_with_its_last_app(node: Node, now: Path) -> None:
    node.apply("web", **BINARY)
    node.apply("hello", type="script", command=["echo hello"])
    node.apply("slow", type="script", command=["while :; do sleep 0.1; done"], **QUICK)
    node.apply("off", **BINARY | {"replicas": 0})
    node.reaches("web", "running")
    node.reaches("hello", "completed")
    node.reaches("slow", "running")
    pids = [node.pid("web", 0), node.pid("web", 1), node.pid("slow")]
    apps = ("web", "hello", "slow", "off")
    seen, (keeper,) = how_it_is(node, *apps), keepers(node)

    switch(node, now)
    assert len(started_versions(node)) == 2
    assert started_versions(node)[0] == OLD_VERSION
    assert [node.pid("web", 0), node.pid("web", 1), node.pid("slow")] == pids
    assert all(alive(pid) for pid in pids)
    assert how_it_is(node, *apps) == seen
    assert len(node.exits("hello")) == 1
    assert keeper in keepers(node)

    node.apply("new", **BINARY)
    node.reaches("new", "running")
    assert len(keepers(node)) == 2
    for app in ("web", "slow"):
        node.request("DELETE", f"/v1/apps/{app}")
    eventually(lambda: not alive(keeper), 30)
    assert [row[1:3] for row in node.exits("slow")] == [(None, "SIGTERM")]  # told by the old keeper to the new agent
    assert node.status("new")["restarts"] == 0


def test_what_ends_between_the_two_versions_is_known_with_its_exit_code(node: Node, now: Path, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    node.apply(
        "job", type="script", command=[f"while [ ! -e {gate} ]; do sleep 0.05; done", "exit 7"], restart={"policy": "never"}, **QUICK
    )
    node.reaches("job", "running")
    pid = node.pid("job")
    assert node.stop() == 0
    gate.touch()
    eventually(lambda: not alive(pid))
    node.program = (str(now), "-I", "-m", "boreas_agent")
    node.start()
    node.reaches("job", "failed")
    assert [code for _, code, _, _ in node.exits("job")] == [7]


@pytest.mark.docker
def test_an_upgrade_leaves_containers_as_they_are(tmp_path: Path, clean_engine: Engine, before: Path, now: Path) -> None:
    with _run_by(Node(tmp_path / "node", clean_engine.socket), before) as node:
        node.apply("web", type="docker", image=clean_engine.image, command=list(SERVE), replicas=2, **QUICK)
        node.reaches("web", "running")
        seen = how_it_is(node, "web")

        def containers() -> list[tuple[str, int]]:
            ids = sorted(one["Id"] for one in clean_engine.client.containers(all=True))
            return [(ref, clean_engine.client.inspect_container(ref)["State"]["Pid"]) for ref in ids]

        ran = containers()
        assert len(ran) == 2
        switch(node, now)
        assert how_it_is(node, "web") == seen
        assert containers() == ran


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a version to come: what users ask for has more fields there, all of them with defaults."""
    folder = tmp_path_factory.mktemp("newer")
    source = this_source(folder / "source")
    for module, model in (
        ("common", "Common"),
        ("policies", "Rollout"),
        ("policies", "Restart"),
        ("probes", "Probe"),
        ("docker", "DockerPkg"),
    ):
        file = source / "boreas_agent" / "spec" / f"{module}.py"
        began, line, rest = file.read_text().partition(f"class {model}(")
        assert line, f"no {model} in {file}"
        head, _, body = rest.partition(":\n")
        file.write_text(f"{began}{line}{head}:\n    novelty_of_{model.lower()}: int = 7\n{body}")
    return environment(folder / "venv", wheel(source, folder / "dist"))


READY: dict[str, Any] = {"interval_seconds": 0.2, "failure_threshold": 2}
BACK_OFF = {"restart": {"initial_delay_seconds": 0.1}}


def test_scenario_10_a_version_with_new_fields_and_defaults_restarts_no_process_and_forgets_nothing(
    tmp_path: Path, now: Path, newer: Path
) -> None:
    bad = BINARY | BACK_OFF | {"command": ["/bin/sh", "-c", "exit 3"]}
    specs: dict[str, tuple[str, dict[str, Any]]] = {
        "web": ("running", BINARY | {"health": {"readiness": {"exec": {"command": ["/bin/true"]}, **READY}}}),
        "rolling": ("running", BINARY | {"rollout": {"strategy": "start-first", "min_healthy_seconds": 0.2}}),
        "off": ("stopped", BINARY | {"replicas": 0}),
        "done": ("completed", {"type": "script", "command": ["true"]}),
        "given-up": ("failed", {"type": "script", "command": ["exit 4"], "restart": {"policy": "never"}}),
    }
    with _run_by(Node(tmp_path / "node"), now) as node:
        for app, (status, pkg) in specs.items():
            node.apply(app, **pkg)
            node.reaches(app, status)
        node.apply("blocked", "v1", **BINARY)
        node.reaches("blocked", "running")
        node.apply("blocked", "v2", **bad)
        eventually(lambda: node.status("blocked")["deployment"]["outcome"] == "rolled-back", 20)
        apps = (*specs, "blocked")
        eventually(lambda: all(node.status(app)["healthy"]["level"] == 100 for app in ("web", "rolling")))
        seen, claims = how_it_is(node, *apps), [node.claim(app, replica) for app in ("web", "rolling", "blocked") for replica in (0, 1)]
        ended, told = [node.exits(app) for app in apps], node.sql("SELECT count(*) FROM v_health")
        for python in (newer, now):  # and back again
            switch(node, python)
            assert how_it_is(node, *apps) == seen
            assert [node.claim(app, replica) for app in ("web", "rolling", "blocked") for replica in (0, 1)] == claims
            for app, (_, pkg) in specs.items():
                assert node.apply(app, **pkg)["changed"] is False
            again = node.apply("blocked", "v2", **bad)
            assert (again["changed"], "blocked" in again["message"]) == (False, True)
            assert ([node.exits(app) for app in apps], node.sql("SELECT count(*) FROM v_health")) == (ended, told)


@pytest.mark.docker
def test_scenario_10_a_version_with_new_fields_and_defaults_restarts_no_container(
    tmp_path: Path, clean_engine: Engine, now: Path, newer: Path
) -> None:
    line = "echo fine > /tmp/is; exec httpd -f -p 8080 -h /tmp"
    pkg = {"type": "docker", "image": clean_engine.image, "command": ["/bin/sh", "-c", line], "replicas": 2, **QUICK}
    pkg["health"] = {"readiness": {"http": {"port": 8080, "path": "/is"}, **READY}}
    with _run_by(Node(tmp_path / "node", clean_engine.socket), now) as node:
        node.apply("web", **pkg)
        node.apply("off", **pkg | {"replicas": 0})
        node.reaches("web", "running")
        node.reaches("off", "stopped")
        seen = how_it_is(node, "web", "off")

        def ran() -> list[tuple[str, str]]:
            ids = sorted(one["Id"] for one in clean_engine.client.containers(all=True))
            return [(ref, clean_engine.client.inspect_container(ref)["State"]["StartedAt"]) for ref in ids]

        before = ran()
        for python in (newer, now):
            switch(node, python)
            assert how_it_is(node, "web", "off") == seen
            assert node.apply("web", **pkg)["changed"] is False
            assert ran() == before
