"""Bad versions of every kind, on a real agent: the old one is back or still there, and every word about it is true."""

from __future__ import annotations

import http.client
import re
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.engine.engine import Engine
from tests.engine.node import Node, running_node
from tests.engine.registry import Registry
from tests.engine.test_scenarios_docker import containers
from tests.engine.witness import witness
from tests.ports import free_port
from tests.waiting import eventually

QUICK: dict[str, Any] = {
    "rollout": {"min_healthy_seconds": 0.3},
    "restart": {"initial_delay_seconds": 0.1},
    "stop": {"grace_seconds": 0.5},
}
OFTEN = {"interval_seconds": 0.2, "timeout_seconds": 2, "failure_threshold": 2}
IMPATIENT = {"timeout_seconds": 0.3}
WHY = {
    "exits at once": r"crash-looping: exited with code 3, 3 times in a row",
    "answers 500": r"not healthy within 3 s: not ready: readiness probe failed.*HTTP 500",
    "hangs": r"not healthy within 3 s: not ready: readiness probe failed.*no answer",
    "is not there": r"cannot (pull|execute) \S+: .*([Nn]ot found|No such file|unknown)",
    "is never ready": r"not healthy within 3 s: not ready: readiness probe failed.*connection refused",
}


@dataclass
class Bench:
    """One way to deploy an app: ``pkg`` of a good version, ``bad`` what a bad one has instead, ``serves`` whether the good one answers."""

    node: Node
    app: str
    pkg: dict[str, Any]
    serves: Callable[[], bool]
    bad: dict[str, dict[str, Any]] = field(default_factory=dict)
    made_of: Callable[[], object] = lambda: None

    def worse(self, how: str) -> dict[str, Any]:
        """The pkg of a bad version; where its badness is that it never becomes good, it has little time for it."""
        short = {"rollout": self.pkg["rollout"] | {"progress_deadline_seconds": 3}} if "within 3 s" in WHY[how] else {}
        return self.pkg | self.bad[how] | short

    def deployments(self) -> list[tuple[Any, ...]]:
        query = "SELECT revision, version, kind, outcome, reason FROM v_deployments WHERE app = ? ORDER BY id"
        return self.node.sql(query, self.app)


def answers(url: str) -> bool:
    """With 200, and soon."""
    try:
        with urllib.request.urlopen(url, timeout=0.5) as answer:
            return bool(answer.status == 200)
    except (OSError, http.client.HTTPException):  # where nobody listens, a connection may even reach itself and answer with the question
        return False


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with running_node(tmp_path_factory.mktemp("bad-versions") / "node") as started:
        yield started


@pytest.fixture(scope="module")
def boxes(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with running_node(tmp_path_factory.mktemp("bad-versions") / "node", engine.socket) as started:
        yield started
    engine.remove_containers()


def binary(request: pytest.FixtureRequest, app: str) -> Bench:
    node: Node = request.getfixturevalue("processes")
    folder: Path = request.getfixturevalue("tmp_path")
    port, nobody = free_port(), free_port()

    def server(word: str) -> list[str]:
        (folder / word).write_text(word)
        return [sys.executable, "-I", "-S", str(Path(__file__).with_name("answering.py")), str(port), str(folder / word)]

    probe = {"http": {"port": port, "path": "/"}, **OFTEN}
    bad = {
        "exits at once": {"command": ["/bin/sh", "-c", "exit 3"]},
        "answers 500": {"command": server("500")},
        "hangs": {"command": server("hang"), "health": {"readiness": probe | IMPATIENT}},
        "is not there": {"command": ["/no/such/program"]},
        "is never ready": {"command": ["/bin/sleep", "3600"], "health": {"readiness": {"tcp": {"port": nobody}, **OFTEN}}},
    }
    pkg = {"type": "binary", "command": server("200"), "health": {"readiness": probe}, **QUICK}
    return Bench(node, app, pkg, lambda: answers(f"http://127.0.0.1:{port}/"), bad, lambda: node.claim(app)["pid"])


def docker(request: pytest.FixtureRequest, app: str) -> Bench:
    node, engine, registry = (request.getfixturevalue(name) for name in ("boxes", "engine", "registry"))
    port = free_port()
    bench = _container(node, engine, registry, app, {"ports": [{"host": port, "container": 8080}]})
    bench.serves = lambda: answers(f"http://127.0.0.1:{port}/cgi-bin/is")
    return bench


def docker_start_first(request: pytest.FixtureRequest, app: str) -> Bench:
    node, engine, registry = (request.getfixturevalue(name) for name in ("boxes", "engine", "registry"))
    bench = _container(node, engine, registry, app, {"rollout": QUICK["rollout"] | {"strategy": "start-first"}})

    def serves() -> bool:
        here = [one for one in containers(engine, app) if one["Labels"]["boreas.version"] == "v1" and one["State"] == "running"]
        addresses = [one["NetworkSettings"]["Networks"]["bridge"]["IPAddress"] for one in here]
        return any(answers(f"http://{address}:8080/cgi-bin/is") for address in addresses)

    bench.serves = serves
    return bench


def _container(node: Node, engine: Engine, registry: Registry, app: str, more: dict[str, Any]) -> Bench:
    def server(says: str) -> list[str]:
        made = f"mkdir -p /tmp/www/cgi-bin; printf '#!/bin/sh\\n{says}\\n' > /tmp/www/cgi-bin/is; chmod +x /tmp/www/cgi-bin/is"
        return ["/bin/sh", "-c", f"{made}; exec httpd -f -p 8080 -h /tmp/www"]

    probe = {"http": {"port": 8080, "path": "/cgi-bin/is"}, **OFTEN}
    bad = {
        "exits at once": {"command": ["/bin/sh", "-c", "exit 3"]},
        "answers 500": {"command": server('echo "Status: 500"; echo')},
        "hangs": {"command": server("sleep 1000"), "health": {"readiness": probe | IMPATIENT}},
        "is not there": {"image": f"{registry.host}/no/such:1"},
        "is never ready": {"command": ["/bin/sleep", "3600"], "health": {"readiness": {"tcp": {"port": 81}, **OFTEN}}},
    }
    good = {"image": engine.image, "command": server('echo "Status: 200"; echo'), "health": {"readiness": probe}}
    pkg = {"type": "docker", **good, **QUICK, **more}
    return Bench(node, app, pkg, lambda: False, bad, lambda: sorted(one["Id"] for one in containers(engine, app)))


@pytest.fixture
def bench(request: pytest.FixtureRequest, kind: Callable[[pytest.FixtureRequest, str], Bench], how: str) -> Iterator[Bench]:
    made = kind(request, f"{kind.__name__.replace('_', '-')}-{how.replace(' ', '-')}")
    yield made
    made.node.request("DELETE", f"/v1/apps/{made.app}")


@pytest.mark.parametrize("how", WHY)
@pytest.mark.parametrize(
    "kind", [binary, pytest.param(docker, marks=pytest.mark.docker), pytest.param(docker_start_first, marks=pytest.mark.docker)]
)
def test_of_a_bad_version_the_old_one_is_back_or_still_there_and_every_word_about_it_is_true(bench: Bench, how: str) -> None:
    node, app = bench.node, bench.app
    node.apply(app, "v1", **bench.pkg)
    node.reaches(app, "running")
    first = bench.made_of()
    with witness(node, app, bench.serves) as seeing:
        eventually(lambda: len(seeing.of("v1")) > 3)
        node.apply(app, "v2", **bench.worse(how))
        eventually(lambda: len(bench.deployments()) == 3 and bench.deployments()[1][3] == "rolled-back", 30)
        node.reaches(app, "degraded")
        known = len(seeing.samples)
        eventually(lambda: len(seeing.samples) > known + 3)
    assert {one.level for one in seeing.of("v1")} == {100}
    assert max(one.level for one in seeing.of("v2")) < 80
    assert seeing.lies("v2") == []
    if bench.pkg["rollout"].get("strategy") == "start-first":
        assert min(one.level for one in seeing.of("v2")) >= 50
        assert bench.made_of() == first

    shown = node.status(app)
    assert (shown["version"], shown["running_version"], shown["healthy"]["level"]) == ("v2", "v1", 70)
    assert re.fullmatch(rf"revision 1 \(v1\) serves again; revision 2 \(v2\) failed and is blocked: {WHY[how]}.*", shown["healthy"]["msg"])
    story = bench.deployments()
    assert [row[:4] for row in story] == [
        (1, "v1", "apply", "succeeded"),
        (2, "v2", "apply", "rolled-back"),
        (1, "v1", "auto-rollback", "succeeded"),
    ]
    assert re.match(WHY[how], story[1][4]), story

    kept, told = bench.made_of(), len(node.events(app))
    node.restart()
    again = node.apply(app, "v2", **bench.worse(how))
    assert (again["changed"], again["revision"]) == (False, 2)
    assert "blocked" in again["message"]
    assert node.reaches(app, "degraded")["blocked"]["reason"].startswith(story[1][4])
    assert (bench.made_of(), len(node.events(app))) == (kept, told)
    assert bench.serves()

    body = {"app": app, "version": "v2", "pkg": bench.worse(how), "force": True}
    assert node.request("POST", "/v1/apply", body)[1]["revision"] == 3
    assert node.status(app)["blocked"] is None
    node.apply(app, "v3", **bench.pkg)
    node.reaches(app, "running", revision=4)
    eventually(lambda: bench.deployments()[-1][:4] == (4, "v3", "apply", "succeeded"))
    assert bench.deployments()[3][:4] == (3, "v2", "apply", "superseded")
