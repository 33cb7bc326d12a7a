"""The scenarios that must hold, for what apps bring with them: on a real agent, with real processes and a server over loopback."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from boreas_agent.errors import Missing
from tests.engine.files import FileServer, file_server
from tests.engine.node import Node, alive, processes_with, running_node
from tests.engine.small_disk import small_disk
from tests.engine.test_artifacts import Shop, bringing, tar
from tests.waiting import eventually

QUICK: dict[str, Any] = {
    "rollout": {"min_healthy_seconds": 0.3},
    "restart": {"initial_delay_seconds": 0.2, "max_delay_seconds": 0.5},
    "stop": {"grace_seconds": 1},
}
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk, or become somebody else")


def program(version: str, size: int = 0) -> bytes:
    """A program that serves for ever; padded with noise, so that its bytes are nobody else's."""
    return f"#!/bin/sh\n# {version}\nexec sleep 1000000\n".encode() + os.urandom(size)


def app(*artifacts: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "binary", "command": ["./app"], "artifacts": list(artifacts), **QUICK, **more}


@pytest.fixture
def server() -> Iterator[FileServer]:
    with file_server() as running:
        yield running


@contextmanager
def node_with(work_dir: Path, config: Path, **artifacts: Any) -> Iterator[Node]:
    config.write_text(json.dumps({"agent": {"artifacts": artifacts}}))
    node = Node(work_dir)
    node.arguments = ("--config", str(config))
    node.start()
    try:
        yield node
    finally:
        node.clean_up()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with running_node(tmp_path / "node") as started:
        yield started


PHASES = "SELECT phases FROM v_deployments WHERE kind = 'apply' ORDER BY revision"


def leftovers(node: Node) -> list[Path]:
    """Whatever is half made."""
    return [*node.work_dir.glob("cache/partial/*"), *node.work_dir.glob("apps/*/releases/.*")]


def release(node: Node, revision: int) -> Path:
    return node.work_dir / "apps/web/releases" / str(revision)


def test_an_app_with_artifacts_runs_from_its_release_and_a_new_agent_finds_it_there(node: Node, server: FileServer) -> None:
    artifact = server.serve("app.tgz", tar(app=program("v1"), lib__data=b"data")) | {"unpack": True}
    node.apply("web", **app(artifact | {"url": artifact["url"] + "?sig=secret"}))
    node.reaches("web", "running")
    pid = node.pid("web")
    assert Path(f"/proc/{pid}/cwd").readlink() == release(node, 1)
    assert (node.work_dir / "apps/web/current").readlink() == Path("releases/1")
    node.restart()
    assert node.reaches("web", "running")["restarts"] == 0
    assert node.pid("web") == pid
    assert server.times("app.tgz") == 1
    shown = json.dumps(node.get("/v1/apps/web/revisions")[1]) + str(node.events("web")) + node.sql("SELECT spec FROM v_revisions")[0][0]
    assert "sig=***" in shown
    assert "secret" not in shown


def test_the_phases_of_a_deployment_say_how_long_fetching_took(node: Node, server: FileServer) -> None:
    node.apply("web", "v1", **app(server.serve("app", program("v1"))))
    node.reaches("web", "running")
    eventually(lambda: node.status("web")["deployment"]["outcome"] == "succeeded")
    node.apply("web", "v2", **app(server.serve("other", program("v2")) | {"sha256": "0" * 64, "dest": "app"}))
    node.reaches("web", "degraded")
    first, second = ([(one["phase"], one["at"]) for one in json.loads(row[0])] for row in node.sql(PHASES))
    assert [phase for phase, _ in first] == ["pending", "fetching", "starting", "verifying", "succeeded"]
    assert [phase for phase, _ in second][:2] == ["pending", "fetching"]
    assert "starting" not in [phase for phase, _ in second]  # the old version ran on, untouched
    assert [at for _, at in first] == sorted(at for _, at in first)


def test_a_plan_names_what_would_be_fetched(node: Node, server: FileServer) -> None:
    artifact = server.serve("app", program("v1")) | {"url": server.url("app") + "?sig=secret"}
    answer = node.request("POST", "/v1/plan", {"app": "web", "version": "v1", "pkg": app(artifact)})[1]
    assert [one["action"] for one in answer["actions"]] == ["prepare", "start"]
    assert answer["actions"][0]["artifacts"] == [server.url("app") + "?sig=***"]
    assert server.asked == []


def test_scenario_4_a_wrong_checksum_has_a_visible_reason_and_leaves_the_old_revision_untouched(node: Node, server: FileServer) -> None:
    node.apply("web", "v1", **app(server.serve("app", program("v1"))))
    node.reaches("web", "running")
    pid = node.pid("web")
    wrong = server.serve("other", program("v2"))
    node.apply("web", "v2", **app(wrong | {"sha256": "0" * 64, "dest": "app"}))
    shown = node.reaches("web", "degraded")
    assert f"expected sha256 {'0' * 64}, got {wrong['sha256']}" in shown["blocked"]["reason"]
    assert (node.pid("web"), alive(pid)) == (pid, True)
    assert leftovers(node) == []
    assert not release(node, 2).exists()
    assert node.exits("web") == []


def test_scenario_4_a_first_version_with_a_wrong_checksum_is_tried_again_with_backoff_and_heals(node: Node, server: FileServer) -> None:
    good = server.serve("app", program("v1"))
    server.serve("app", b"something else")
    node.apply("web", "v1", **app(good))
    eventually(lambda: "wrong checksum" in node.status("web").get("healthy", {}).get("msg", ""))
    assert node.status("web")["healthy"]["level"] < 50
    eventually(lambda: server.times("app") >= 3)
    failed = [line for line in node.events("web") if line.startswith("PrepareFailed")]
    assert len(failed) == 1
    server.files["/app"].content = program("v1")
    node.request("POST", "/v1/apply", {"app": "web", "version": "v1", "pkg": app(server.serve("app", program("v1", 10)))})
    node.reaches("web", "running")


def test_scenario_4_killed_at_half_a_download_it_is_gone_on_with_and_the_old_revision_serves_all_the_while(
    node: Node, server: FileServer
) -> None:
    node.apply("web", "v1", **app(server.serve("app", program("v1"))))
    node.reaches("web", "running")
    pid = node.pid("web")
    big = server.serve("big", program("v2", 8_000_000), hold_at=5_000_000) | {"dest": "app"}
    node.apply("web", "v2", **app(big))
    partial = node.work_dir / "cache/partial" / big["sha256"]
    eventually(lambda: partial.exists() and partial.stat().st_size > 3_000_000)
    node.kill()
    eventually(lambda: processes_with(f'"cache": "{node.work_dir}/cache"') == [])  # the process that fetched goes with the agent
    assert alive(pid)
    server.files["/big"].release.set()
    node.start()
    node.reaches("web", "running", revision=2)
    first, second = (asked for path, asked, _ in server.asked if path == "/big")
    assert first is None
    assert second is not None
    assert int(second.removeprefix("bytes=").rstrip("-")) > 3_000_000
    assert node.sql("SELECT revision, outcome FROM v_deployments WHERE app = 'web' ORDER BY id") == [(1, "succeeded"), (2, "succeeded")]
    assert [code for _, code, _, _ in node.exits("web")] == [None]  # v1 was stopped, once
    assert leftovers(node) == []


def test_an_agent_that_is_stopped_at_half_a_download_leaves_it_to_the_next_one(node: Node, server: FileServer) -> None:
    big = server.serve("big", program("v1", 8_000_000), hold_at=5_000_000) | {"dest": "app"}
    node.apply("web", **app(big))
    partial = node.work_dir / "cache/partial" / big["sha256"]
    eventually(lambda: partial.exists() and partial.stat().st_size > 3_000_000)
    assert node.stop() == 0
    assert processes_with(f'"cache": "{node.work_dir}/cache"') == []
    assert partial.stat().st_size > 3_000_000
    server.files["/big"].release.set()
    node.start()
    node.reaches("web", "running")
    assert [asked is not None for path, asked, _ in server.asked if path == "/big"] == [False, True]


def test_scenario_4_killed_while_a_release_is_made_nothing_of_it_is_left(node: Node, server: FileServer) -> None:
    node.apply("web", "v1", **app(server.serve("app", program("v1"))))
    node.reaches("web", "running")
    node.kill()
    half = node.work_dir / "apps/web/releases/.making.2.0123"
    (half / "root").mkdir(parents=True)
    (half / "root/app").write_bytes(b"half")
    node.start()
    assert leftovers(node) == []


@root_only
def test_scenario_8_on_a_full_disk_the_old_revision_serves_and_the_new_one_comes_once_there_is_room(
    tmp_path: Path, server: FileServer
) -> None:
    with (
        small_disk(tmp_path / "disk", "64M") as disk,
        node_with(disk, tmp_path / "agent.yaml", min_free_bytes="8MiB") as node,
    ):
        node.apply("web", "v1", **app(server.serve("app", program("v1"))))
        node.reaches("web", "running")
        pid = node.pid("web")
        filler = disk / "filler"
        filler.write_bytes(bytes(40 * 1024**2))
        node.apply("web", "v2", **app(server.serve("big", program("v2", 22_000_000), length=False) | {"dest": "app"}))
        eventually(lambda: "disk is too full" in node.status("web")["healthy"]["msg"], 20)
        assert node.get("/v1/health")[0] == 200
        assert (node.pid("web"), alive(pid)) == (pid, True)
        assert leftovers(node) == []
        assert not release(node, 2).exists()
        filler.unlink()
        node.reaches("web", "running", revision=2)
        shutil.rmtree(release(node, 1))


@root_only
@pytest.mark.parametrize("unpack", [False, True])
def test_scenario_8_what_no_more_fits_on_the_disk_leaves_nothing_and_works_once_there_is_room(
    tmp_path: Path, server: FileServer, unpack: bool
) -> None:
    with small_disk(tmp_path / "disk", "8M") as disk:
        shop = Shop(disk, min_free_bytes=0)
        content = tar(app=b"x" * 6_000_000, b=os.urandom(5_000_000)) if unpack else program("v1", 9_000_000)
        artifact = server.serve("app", content, length=False) | ({"unpack": True} if unpack else {})
        (error,) = shop.prepare(bringing(artifact))
        assert error is not None
        assert not isinstance(error, Missing)
        assert "no room" in str(error) or "disk is full" in str(error) or "disk is too full" in str(error)
        assert shop.leftovers == []
        assert not shop.release().exists()
        subprocess.run(["mount", "-o", "remount,size=64M", str(disk)], check=True)
        assert shop.prepare(bringing(artifact)) == [None]
        assert (shop.release() / "app").exists()


def test_scenario_12_removed_during_a_download_it_is_given_up_and_nothing_is_left_behind(node: Node, server: FileServer) -> None:
    node.apply("web", **app(server.serve("app", program("v1", 3_000_000), hold_at=2_000_000)))
    eventually(lambda: list(node.work_dir.glob("cache/partial/*")))
    eventually(lambda: "fetching" in node.status("web")["healthy"]["msg"])
    node.request("DELETE", "/v1/apps/web")
    eventually(lambda: node.status("web") == {})
    assert leftovers(node) == []
    assert not (node.work_dir / "apps/web").exists()
    assert list(node.work_dir.glob("cache/sha256/*")) == []


def test_scenario_12_a_removed_app_takes_all_its_releases_with_it(node: Node, server: FileServer) -> None:
    for version in ("v1", "v2"):
        node.apply("web", version, **app(server.serve(f"app-{version}", program(version)) | {"dest": "app"}))
        node.reaches("web", "running", revision=int(version[1]))
    assert {path.name for path in release(node, 1).parent.iterdir()} == {"1", "2"}
    node.request("DELETE", "/v1/apps/web")
    eventually(lambda: node.status("web") == {})
    assert [path.name for path in (node.work_dir / "apps/web").iterdir()] == ["logs"]


def test_scenario_11_a_download_that_a_newer_version_does_not_need_is_given_up(node: Node, server: FileServer) -> None:
    node.apply("web", "v1", **app(server.serve("slow", program("v1", 3_000_000), hold_at=2_000_000) | {"dest": "app"}))
    eventually(lambda: list(node.work_dir.glob("cache/partial/*")))
    node.apply("web", "v2", **app(server.serve("app", program("v2"))))
    node.reaches("web", "running", revision=2)
    assert leftovers(node) == []


def test_how_far_a_download_has_come_is_in_the_status_and_the_history(node: Node, server: FileServer) -> None:
    node.apply("web", **app(server.serve("app", program("v1", 3 * 1024**2), hold_at=2 * 1024**2)))
    eventually(lambda: node.status("web")["healthy"]["msg"] == "fetching app: 2.0 of 3.0 MiB", 15)
    assert "FetchProgress: fetching app: 2.0 of 3.0 MiB" in node.events("web")
    server.files["/app"].release.set()
    node.reaches("web", "running")


def test_going_back_needs_no_network_by_itself_or_by_hand(node: Node, server: FileServer) -> None:
    node.apply("web", "v1", **app(server.serve("app", program("v1"))))
    node.reaches("web", "running")
    node.apply("web", "v2", **app(server.serve("app2", program("v2")) | {"dest": "app"}))
    node.reaches("web", "running", revision=2)
    server.files = {"/bad": server.files["/app2"]}
    bad = server.serve("bad", b"#!/bin/sh\nexit 3\n") | {"dest": "app"}
    node.apply("web", "v3", **app(bad))
    node.reaches("web", "degraded", revision=3)
    eventually(lambda: (node.work_dir / "apps/web/current").readlink() == Path("releases/2"))
    assert node.status("web")["running_version"] == "v2"
    node.request("POST", "/v1/apps/web/rollback", {"to": 1})
    node.reaches("web", "running", revision=4)
    assert b"# v1" in (release(node, 4) / "app").read_bytes()


def test_a_release_that_somebody_deleted_is_made_again(node: Node, server: FileServer) -> None:
    node.apply("web", **app(server.serve("app", program("v1"))))
    node.reaches("web", "running")
    pid = node.pid("web")
    shutil.rmtree(release(node, 1))
    os.kill(pid, 9)
    eventually(lambda: alive(node.pid("web")) and node.pid("web") != pid and (release(node, 1) / "app").exists(), 20)
    node.reaches("web", "running")


def test_a_link_that_was_signed_anew_restarts_nothing(node: Node, server: FileServer) -> None:
    artifact = server.serve("app", program("v1"))
    node.apply("web", **app(artifact | {"url": artifact["url"] + "?sig=1"}))
    node.reaches("web", "running")
    pid = node.pid("web")
    assert node.apply("web", **app(artifact | {"url": artifact["url"] + "?sig=2"}))["changed"] is True
    node.reaches("web", "running", revision=2)
    assert node.pid("web") == pid
    assert server.times("app") == 1


def test_a_script_has_its_artifacts_beside_it(node: Node, server: FileServer) -> None:
    data = server.serve("data", b"42\n")
    node.apply("job", type="script", command=["test $(cat data) = 42"], artifacts=[data], **QUICK | {"restart": {}})
    node.reaches("job", "completed")


@root_only
def test_an_app_of_another_user_can_execute_and_read_what_it_brings(node: Node, server: FileServer) -> None:
    user = pwd.getpwnam("nobody")
    packed = server.serve("lib.tgz", tar(lib__data=b"42")) | {"unpack": True}
    source = b"#!/bin/sh\ntest $(cat lib/data) = 42 && exec sleep 1000000\n"
    node.apply("web", **app(server.serve("app", source), packed, user=str(user.pw_uid)))
    node.reaches("web", "running")
    assert Path(f"/proc/{node.pid('web')}").stat().st_uid == user.pw_uid
    assert node.exits("web") == []


def test_an_artifact_that_is_not_allowed_is_said_with_the_way_out(node: Node) -> None:
    node.apply("web", **app({"url": "file:///etc/hostname", "dest": "app"}))
    eventually(lambda: "agent.artifacts.file_roots allows only files below" in node.status("web")["healthy"]["msg"])


def test_one_app_whose_server_is_silent_delays_no_other(node: Node, server: FileServer) -> None:
    for number in range(10):
        node.apply(f"slow-{number}", **app(server.serve(f"app-{number}", program("x", 3_000_000), hold_at=1_500_000) | {"dest": "app"}))
    eventually(lambda: len(list(node.work_dir.glob("cache/partial/*"))) == 10)
    node.apply("web", **app(server.serve("app", program("v1"))))
    node.reaches("web", "running")


def test_shop_is_closed_in_the_middle_and_the_next_agent_goes_on(tmp_path: Path, server: FileServer) -> None:
    (tmp_path / "files").mkdir()
    shop = Shop(tmp_path)
    artifact = server.serve("app", program("v1", 8_000_000), hold_at=5_000_000)

    async def work() -> None:
        driver = shop.driver()
        await driver.open()
        preparing = asyncio.create_task(driver.prepare(bringing(artifact)))
        await asyncio.to_thread(eventually, lambda: [path for path in tmp_path.glob("cache/partial/*") if path.stat().st_size > 3_000_000])
        await asyncio.wait_for(driver.close(), 20)
        await asyncio.wait({preparing}, timeout=20)
        assert preparing.cancelled()

    asyncio.run(work())
    server.files["/app"].release.set()
    assert shop.prepare(bringing(artifact)) == [None]
    assert server.asked[1][1] is not None
