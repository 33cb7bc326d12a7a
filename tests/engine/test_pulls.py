"""An agent that dies over a pull, and layers that are not what they should be: the old revision serves all the while."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engine.engine import Engine
from tests.engine.node import Node, running_node
from tests.engine.proxy import Proxy
from tests.engine.registry import Registry
from tests.engine.test_scenarios_docker import QUICK, containers
from tests.waiting import eventually

pytestmark = pytest.mark.docker
_NUMBERS = itertools.count()


@pytest.fixture
def node(docker_proxy: Proxy, tmp_path: Path) -> Iterator[Node]:
    with running_node(tmp_path / "node", docker_proxy.socket) as started:
        yield started


@pytest.fixture
def image(clean_engine: Engine, registry: Registry, registry_proxy: Proxy) -> Iterator[str]:
    """The reference, through the proxy, of an image that only the registry has, and that shares no layer with another."""
    name = f"pulled-{next(_NUMBERS)}:1"
    registry.push(name)
    reference = f"127.0.0.1:{registry_proxy.port}/{name}"
    yield reference
    clean_engine.remove_containers()
    if here(clean_engine, reference):
        clean_engine.client.remove_image(reference)


def here(engine: Engine, reference: str) -> bool:
    return any(reference in (one["RepoTags"] or ()) for one in engine.client.images())


def box(engine: Engine, **more: Any) -> dict[str, Any]:
    retry = {"restart": {"initial_delay_seconds": 0.3, "factor": 2, "max_delay_seconds": 1}}
    return {"type": "docker", "image": engine.image, "command": ["/bin/sleep", "3600"], **QUICK, **retry, **more}


def run_of(engine: Engine, app: str = "web") -> list[tuple[str, str]]:
    """Id and start of each of the app's containers that run."""
    ids = [one["Id"] for one in containers(engine, app) if one["State"] == "running"]
    return [(ident, engine.client.inspect_container(ident)["State"]["StartedAt"]) for ident in ids]


def rows(node: Node) -> list[tuple[Any, ...]]:
    return node.sql("SELECT revision, version, kind, outcome FROM v_deployments WHERE app = 'web' ORDER BY id")


def is_in_place_once(node: Node, engine: Engine) -> None:
    """v2, after v1, each with one row and one start."""
    assert rows(node) == [(1, "v1", "apply", "succeeded"), (2, "v2", "apply", "succeeded")]
    assert node.sql("SELECT revision FROM v_revisions WHERE app = 'web' ORDER BY revision") == [(1,), (2,)]
    assert [one["Labels"]["boreas.version"] for one in containers(engine, "web")] == ["v2"]
    assert sum(line.startswith("Started: started web.2.0") for line in node.events("web")) == 1
    assert node.status("web")["restarts"] == 0


def test_scenario_4_killed_at_half_a_pull_the_old_revision_serves_and_the_new_one_comes_once(
    node: Node, clean_engine: Engine, registry_proxy: Proxy, image: str
) -> None:
    node.apply("web", "v1", **box(clean_engine))
    node.reaches("web", "running")
    before = run_of(clean_engine)
    half_way = registry_proxy.stall("GET /v2/pulled-.*/blobs", 100_000)
    node.apply("web", "v2", **box(clean_engine, image=image))
    eventually(lambda: registry_proxy.count("/blobs/") > 0 and node.status("web")["healthy"]["msg"] == f"fetching {image}")
    node.restart()
    eventually(lambda: "fetching" in node.status("web")["healthy"]["msg"])
    assert rows(node) == [(1, "v1", "apply", "succeeded"), (2, "v2", "apply", None)]
    assert node.status("web")["healthy"]["level"] == 50
    assert run_of(clean_engine) == before
    registry_proxy.release(half_way)
    eventually(lambda: node.status("web")["deployment"]["outcome"] == "succeeded", 40)
    is_in_place_once(node, clean_engine)


def test_scenario_4_killed_between_a_pull_and_its_record_the_image_is_not_pulled_again(
    node: Node, clean_engine: Engine, docker_proxy: Proxy, image: str
) -> None:
    node.apply("web", "v1", **box(clean_engine))
    node.reaches("web", "running")
    before = run_of(clean_engine)
    unsaid = docker_proxy.stall("POST .*/images/create", 100)
    node.apply("web", "v2", **box(clean_engine, image=image))
    eventually(lambda: here(clean_engine, image), 40)
    node.kill()
    assert run_of(clean_engine) == before
    docker_proxy.release(unsaid)
    node.start()
    eventually(lambda: node.status("web")["deployment"]["outcome"] == "succeeded", 40)
    is_in_place_once(node, clean_engine)
    assert docker_proxy.count("POST .*/images/create") == 1


def test_scenario_4_a_corrupt_layer_is_a_reason_to_read_and_to_wait_and_the_old_revision_is_untouched(
    node: Node, clean_engine: Engine, registry_proxy: Proxy, docker_proxy: Proxy, image: str
) -> None:
    node.apply("web", "v1", **box(clean_engine))
    node.reaches("web", "running")
    before = run_of(clean_engine)
    corrupt = registry_proxy.corrupt("GET /v2/pulled-.*/blobs")
    node.apply("web", "v2", **box(clean_engine, image=image))
    eventually(lambda: "cannot pull" in node.status("web")["healthy"]["msg"], 30)
    shown = node.status("web")
    assert re.fullmatch(
        rf"revision 1 \(v1\) still serves; cannot pull {image}: .*(verif|digest|unexpected|invalid).*", shown["healthy"]["msg"]
    )
    assert (shown["status"], shown["healthy"]["level"], shown["version"]) == ("deploying", 50, "v2")
    eventually(lambda: docker_proxy.count("POST .*/images/create") >= 3, 30)
    assert run_of(clean_engine) == before
    assert not here(clean_engine, image)
    told = [line for line in node.events("web") if line.startswith("PrepareFailed")]
    assert len(told) == 1, "said once, however often it was tried"
    registry_proxy.release(corrupt)
    eventually(lambda: node.status("web")["deployment"]["outcome"] == "succeeded", 40)
    is_in_place_once(node, clean_engine)


def test_scenario_12_removed_during_a_pull_it_is_given_up_and_nothing_is_left_behind(
    node: Node, clean_engine: Engine, registry_proxy: Proxy, docker_proxy: Proxy, image: str
) -> None:
    half_way = registry_proxy.stall("GET /v2/pulled-.*/blobs", 100_000)
    node.apply("web", "v1", **box(clean_engine, image=image))
    eventually(lambda: registry_proxy.count("/blobs/") > 0 and "fetching" in node.status("web")["healthy"]["msg"])
    assert node.request("DELETE", "/v1/apps/web")[0] == 200
    eventually(lambda: node.get("/v1/status/web")[0] == 404, 15)
    assert node.get("/v1/status")[1]["apps"] == []
    eventually(lambda: docker_proxy.open_connections <= 1, 15)  # the pull is hung up; the event stream stays
    registry_proxy.release(half_way)  # an engine may notice only with its next byte that nobody waits any more
    eventually(lambda: registry_proxy.open_connections == 0, 15)
    assert containers(clean_engine, "web") == []
    assert not here(clean_engine, image)
    assert not (node.work_dir / "apps/web").exists()
    assert docker_proxy.count("POST .*/containers/create") == 0
    assert rows(node) == [(1, "v1", "apply", "superseded"), (2, "v1", "remove", "succeeded")]
    node.apply("web", "v1", **box(clean_engine, image=image))
    node.reaches("web", "running", 40)
