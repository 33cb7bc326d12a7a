"""Files that the agent mounts into containers, on a real agent with a real Docker Engine."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from boreas_agent.drivers.docker import DockerDriver
from boreas_agent.errors import Missing
from boreas_agent.model import Phase
from tests.engine.engine import Engine
from tests.engine.node import Node, running_node
from tests.engine.test_scenarios_docker import box, container, containers
from tests.engine.wants import Make, only, seen_in, shell, using
from tests.waiting import eventually

pytestmark = pytest.mark.docker


@pytest.fixture
def node(clean_engine: Engine, tmp_path: Path) -> Iterator[Node]:
    with running_node(tmp_path / "node", clean_engine.socket) as started:
        yield started


def ini(content: str = "s3cret-1", **more: Any) -> dict[str, Any]:
    return {"path": "/etc/app/app.ini", "content": content, **more}


def telling(engine: Engine, *files: dict[str, Any], **more: Any) -> dict[str, Any]:
    return box(engine, command=["/bin/sh", "-c", "cat /etc/app/app.ini; echo; exec sleep 3600"], files=list(files), **more)


def said(engine: Engine, ident: str) -> str:
    return str(engine.client.logs(ident).decode())


def kept(node: Node, app: str = "web") -> list[str]:
    """The revisions that there are files of, and whatever is half made."""
    return sorted(path.name.partition(".")[0] for path in (node.work_dir / "apps" / app).glob("files/*"))


def test_a_container_reads_its_files_in_their_modes_and_cannot_write_them(
    clean_engine: Engine, docker_driver_factory: Make, tmp_path: Path
) -> None:
    (tmp_path / "blob").write_bytes(b"from the node")
    files = [
        ini("ü\r\n"),
        {"path": "/run/mine", "content": "mine", "mode": "0400"},
        {"path": "/bin/tool", "content": "#!/bin/sh\necho tool\n", "mode": "0755"},
        {"path": "/data/blob", "content_from": str(tmp_path / "blob")},
    ]
    (tmp_path / "volume").mkdir()
    script = (
        "cat /etc/app/app.ini /run/mine /data/blob; echo; /bin/tool; id -u; stat -c %a /run/mine /bin/tool; echo x > /run/mine || exit 7"
    )
    volumes = [{"host_path": str(tmp_path / "volume"), "container_path": "/data"}]
    wanted = shell(script, files=files, user="1234:1234", tmpfs="/run", read_only=True, volumes=volumes, restart={"policy": "never"})

    async def work(driver: DockerDriver) -> tuple[str, int | None]:
        assert await driver.prepared(wanted) is False
        await driver.prepare(wanted)
        assert await driver.prepared(wanted) is True
        await driver.start(wanted, 0)
        seen = await seen_in(driver, Phase.EXITED)
        assert seen.last_exit is not None
        return seen.ref, seen.last_exit.code

    ref, code = using(docker_driver_factory, work)
    lines = clean_engine.client.logs(ref, stderr=False).decode().splitlines()
    assert lines == ["ü", "minefrom the node", "tool", "1234", "400", "755"]
    assert code == 7


def test_a_missing_file_of_the_node_is_named_before_anything_is_made(
    clean_engine: Engine, docker_driver_factory: Make, tmp_path: Path
) -> None:
    wanted = shell("true", files=[{"path": "/a", "content_from": str(tmp_path / "none")}])

    async def work(driver: DockerDriver) -> None:
        with pytest.raises(Missing, match=f"cannot write /a: content_from: {tmp_path}/none does not exist; create it on this node"):
            await driver.prepare(wanted)

    using(docker_driver_factory, work)
    assert list((tmp_path / "node").glob("apps/web/files/*")) == []


def test_files_that_somebody_has_deleted_are_written_again_by_the_next_start(
    clean_engine: Engine, docker_driver_factory: Make, tmp_path: Path
) -> None:
    wanted = shell("cat /etc/app/app.ini", files=[ini("one ")], restart={"policy": "never"})

    async def work(driver: DockerDriver) -> str:
        await driver.prepare(wanted)
        await driver.start(wanted, 0)
        await seen_in(driver, Phase.EXITED)
        shutil.rmtree(tmp_path / "node/apps/web/files")
        await driver.start(wanted, 1)
        return (await only(driver)).ref

    ref = using(docker_driver_factory, work)
    eventually(lambda: said(clean_engine, ref) == "one one ")


def test_replicas_that_start_together_have_the_same_files(clean_engine: Engine, docker_driver_factory: Make, tmp_path: Path) -> None:
    wanted = [shell("cat /etc/app/app.ini; sleep 3600", replica=replica, files=[ini("one\n")]) for replica in range(4)]

    async def work(driver: DockerDriver) -> list[str]:
        await asyncio.gather(*(driver.start(one, 0) for one in wanted))
        return [one.ref for one in await driver.observe("web")]

    refs = using(docker_driver_factory, work)
    eventually(lambda: [said(clean_engine, ref) for ref in refs] == ["one\n"] * 4)
    (made,) = (tmp_path / "node/apps/web/files").iterdir()
    assert [(path.name, path.stat().st_nlink) for path in made.iterdir()] == [("0", 1)]


def test_files_that_a_container_has_stay_whatever_its_app_needs(clean_engine: Engine, docker_driver_factory: Make, tmp_path: Path) -> None:
    old, new = (shell("sleep 3600", revision=revision, files=[ini()]) for revision in (1, 2))

    async def work(driver: DockerDriver) -> list[list[str]]:
        seen = []
        for one in (old, new):
            await driver.prepare(one)
        await driver.start(old, 0)
        for keep in ([2], [1]):  # of one that is stale, nothing newer goes
            await driver.collect({"web": keep})
            seen.append(sorted(path.name.partition(".")[0] for path in (tmp_path / "node/apps/web/files").iterdir()))
        running = await only(driver)
        await driver.stop(running, "SIGKILL", 0)
        await driver.remove(running)
        await driver.collect({"web": [2], "other": []})
        seen.append([path.name.partition(".")[0] for path in (tmp_path / "node/apps/web/files").iterdir()])
        await driver.collect({"web": []})
        return seen

    assert using(docker_driver_factory, work) == [["1", "2"], ["1", "2"], ["2"]]
    assert not (tmp_path / "node/apps/web").exists()


# --- the whole agent ---------------------------------------------------------------------------------


def test_another_content_replaces_a_rollback_brings_the_old_one_back_and_removal_leaves_nothing(node: Node, clean_engine: Engine) -> None:
    node.apply("web", **telling(clean_engine, ini("s3cret-1")))
    node.reaches("web", "running", revision=1)
    first = container(clean_engine, "web")
    eventually(lambda: said(clean_engine, first) == "s3cret-1\n")
    node.apply("web", **telling(clean_engine, ini("s3cret-2")))
    node.reaches("web", "running", revision=2)
    second = container(clean_engine, "web")
    assert second != first
    eventually(lambda: said(clean_engine, second) == "s3cret-2\n")
    node.request("POST", "/v1/apps/web/rollback")
    node.reaches("web", "running", revision=3)
    eventually(lambda: said(clean_engine, container(clean_engine, "web")) == "s3cret-1\n")
    shown = json.dumps(node.get("/v1/apps/web/revisions")[1]) + str(node.sql("SELECT * FROM v_revisions")) + str(node.events("web"))
    assert "s3cret" not in shown
    node.request("DELETE", "/v1/apps/web")
    eventually(lambda: node.status("web") == {})
    assert containers(clean_engine, "web") == []
    assert not (node.work_dir / "apps/web").exists()


def test_another_number_of_replicas_keeps_the_containers_and_their_files(node: Node, clean_engine: Engine) -> None:
    node.apply("web", **telling(clean_engine, ini()))
    node.reaches("web", "running", revision=1)
    first = container(clean_engine, "web")
    node.apply("web", **telling(clean_engine, ini(), replicas=2))
    node.reaches("web", "running", revision=2)
    assert first in [one["Id"] for one in containers(clean_engine, "web")]
    assert kept(node) == ["1", "2"]
    node.kill()
    node.start()
    assert node.reaches("web", "running")["restarts"] == 0
    os.kill(clean_engine.client.inspect_container(first)["State"]["Pid"], 9)
    eventually(lambda: said(clean_engine, first) == "s3cret-1\ns3cret-1\n", 20)


def test_a_hook_before_the_start_sees_the_files_and_a_version_that_fails_goes_back_to_the_old_ones(
    node: Node, clean_engine: Engine
) -> None:
    hook = {"pre_start": {"exec": {"command": ["/bin/grep", "-q", "s3cret", "/etc/app/app.ini"]}}}
    node.apply("web", **telling(clean_engine, ini("s3cret-1"), hooks=hook))
    node.reaches("web", "running", revision=1)
    first = container(clean_engine, "web")
    node.apply("web", "v2", **telling(clean_engine, ini("other"), hooks=hook))
    node.reaches("web", "degraded")
    assert container(clean_engine, "web") == first
    assert set(kept(node)) == {"1", "2"}
