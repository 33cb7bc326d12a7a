"""Files that the agent writes for processes, on a real agent with real processes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from boreas_agent.errors import BoreasError, Missing, Terminal
from tests.engine.files import FileServer, file_server
from tests.engine.node import Node, alive, running_node
from tests.engine.processes import want
from tests.engine.test_artifacts import Shop, tar
from tests.waiting import eventually

QUICK: dict[str, Any] = {
    "rollout": {"min_healthy_seconds": 0.3},
    "restart": {"initial_delay_seconds": 0.2, "max_delay_seconds": 0.5},
    "stop": {"grace_seconds": 1},
}
TELLING = ["/bin/sh", "-c", "echo $(cat conf/app.ini); exec sleep 1000000"]
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with running_node(tmp_path / "node") as started:
        yield started


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path / "shop")


@pytest.fixture
def server() -> Iterator[FileServer]:
    with file_server() as running:
        yield running


def ini(content: str = "s3cret-1", **more: Any) -> dict[str, Any]:
    return {"path": "conf/app.ini", "content": content, **more}


def app(*files: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "binary", "command": TELLING, "files": list(files), **QUICK, **more}


def release(node: Node, revision: int) -> Path:
    return node.work_dir / "apps/web/releases" / str(revision)


def said(node: Node) -> str:
    log = node.work_dir / "apps/web/logs/0.stdout.log"
    return log.read_bytes().replace(b"\0", b"").decode() if log.exists() else ""


def refused(found: list[BaseException | None]) -> BoreasError:
    (error,) = found
    assert isinstance(error, BoreasError)
    return error


# --- the driver alone --------------------------------------------------------------------------------


def writing(*files: dict[str, Any], **more: Any) -> Any:
    return want("web", **{"command": ["./app"], "files": list(files), **more})


def test_files_have_their_content_and_mode_and_the_folders_that_they_need(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"\xff\0\r\n")
    files = (ini("ü\r\n"), {"path": "run", "content": "", "mode": "0750"}, {"path": "a/b/blob", "content_from": str(tmp_path / "blob")})
    assert shop.prepare(writing(*files)) == [None]
    made = {str(path.relative_to(shop.release())): path for path in shop.release().rglob("*") if path.is_file()}
    assert {name: (path.read_bytes(), oct(path.stat().st_mode)[-4:]) for name, path in made.items() if name != ".artifacts.json"} == {
        "conf/app.ini": ("ü\r\n".encode(), "0644"),
        "run": (b"", "0750"),
        "a/b/blob": (b"\xff\0\r\n", "0644"),
    }
    assert shop.leftovers == []


def test_a_file_takes_the_place_of_what_an_artifact_has_brought(shop: Shop, server: FileServer) -> None:
    packed = server.serve("app.tgz", tar(app=b"program", conf__app=b"old", conf__other=b"other")) | {"unpack": True}
    beside = server.serve("single", b"old")
    files = ({"path": "conf/app", "content": "new"}, {"path": "single", "content": "new"})
    assert shop.prepare(writing(*files, artifacts=[packed, beside])) == [None]
    held = {name: (shop.release() / name).read_text() for name in ("app", "conf/app", "conf/other", "single")}
    assert held == {"app": "program", "conf/app": "new", "conf/other": "other", "single": "new"}
    assert [path.read_bytes() for path in shop.work_dir.glob("cache/sha256/*") if path.read_bytes() == b"new"] == []


def test_a_file_does_not_take_the_place_of_a_folder(shop: Shop, server: FileServer) -> None:
    packed = server.serve("app.tgz", tar(conf__app__ini=b"old")) | {"unpack": True}
    error = refused(shop.prepare(writing({"path": "conf/app", "content": "new"}, artifacts=[packed])))
    assert isinstance(error, Missing)
    assert str(error) == "cannot write conf/app: conf/app is a folder: an artifact has brought one of that name"
    assert shop.leftovers == []
    assert not shop.release().exists()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "does not exist; create it on this node"),
        (lambda path: path.mkdir(), "is not a file"),
        (os.mkfifo, "is not a file"),
        (lambda path: path.write_bytes(b"x" * (2**20 + 1)), "is larger than 1048576 bytes"),
    ],
)
def test_a_file_of_the_node_that_cannot_be_read_is_named(shop: Shop, tmp_path: Path, make: Any, words: str) -> None:
    source = tmp_path / "source"
    make(source)
    error = refused(shop.prepare(writing({"path": "app.ini", "content_from": str(source)})))
    assert isinstance(error, Missing)
    assert str(error) == f"cannot write app.ini: content_from: {source} {words}"
    assert shop.leftovers == []


def test_a_user_that_is_not_there_is_named_before_anything_is_written(shop: Shop) -> None:
    error = refused(shop.prepare(writing(ini(), user="nobody-of-that-name")))
    assert isinstance(error, Terminal)
    assert not shop.release().exists()


# --- the whole agent ---------------------------------------------------------------------------------


def test_a_program_finds_its_file_and_nobody_sees_what_is_in_it(node: Node) -> None:
    asked = {"app": "web", "version": "v1", "pkg": app(ini())}
    plan = node.request("POST", "/v1/plan", asked)[1]
    assert [(one["action"], one.get("files")) for one in plan["actions"]] == [("prepare", ["conf/app.ini"]), ("start", None)]
    answer = node.apply("web", **app(ini()))
    node.reaches("web", "running")
    eventually(lambda: said(node) == "s3cret-1\n")
    shown = [node.get(path)[1] for path in ("/v1/status/web", "/v1/apps/web/revisions", "/v1/apps/web/deployments")]
    rows = [node.sql(f"SELECT * FROM {view}") for view in ("v_revisions", "v_events", "v_deployments", "v_status", "v_health")]
    log = node.work_dir.with_suffix(".log").read_text()
    assert "s3cret" not in json.dumps([plan, answer, *shown]) + str(rows) + log
    assert json.loads(node.sql("SELECT spec FROM v_revisions")[0][0])["files"] == [{"path": "conf/app.ini", "content": "***"}]


def test_the_same_again_changes_nothing_and_a_new_agent_finds_it_all_as_it_was(node: Node) -> None:
    node.apply("web", **app(ini()))
    node.reaches("web", "running")
    pid = node.pid("web")
    assert node.apply("web", **app(ini(mode="0644", on_change="restart")))["changed"] is False
    node.restart()
    assert node.reaches("web", "running")["restarts"] == 0
    assert node.pid("web") == pid


def test_another_content_replaces_and_a_rollback_brings_the_old_one_back(node: Node) -> None:
    node.apply("web", **app(ini("one")))
    node.reaches("web", "running", revision=1)
    pid = node.pid("web")
    assert node.apply("web", **app(ini("two")))["revision"] == 2
    node.reaches("web", "running", revision=2)
    assert not alive(pid)
    eventually(lambda: said(node) == "one\ntwo\n")
    node.request("POST", "/v1/apps/web/rollback")
    node.reaches("web", "running", revision=3)
    eventually(lambda: said(node) == "one\ntwo\none\n")
    assert (release(node, 3) / "conf/app.ini").read_text() == "one"


def test_a_failed_version_goes_back_to_the_files_of_the_old_one(node: Node) -> None:
    node.apply("web", **app(ini("one")))
    node.reaches("web", "running", revision=1)
    node.apply("web", "v2", **app(ini("two"), command=["/bin/sh", "-c", "exit 3"]))
    node.reaches("web", "degraded")
    eventually(lambda: said(node) == "one\none\n")


def test_a_missing_file_of_the_node_fails_the_new_version_and_leaves_the_old_one_alone(node: Node, tmp_path: Path) -> None:
    node.apply("web", **app(ini("one")))
    node.reaches("web", "running")
    pid = node.pid("web")
    node.apply("web", "v2", **app({"path": "conf/app.ini", "content_from": str(tmp_path / "none")}))
    shown = node.reaches("web", "degraded")
    assert f"cannot write conf/app.ini: content_from: {tmp_path}/none does not exist" in shown["blocked"]["reason"]
    assert (node.pid("web"), alive(pid)) == (pid, True)
    assert not release(node, 2).exists()


def test_a_first_version_whose_file_of_the_node_comes_later_heals(node: Node, tmp_path: Path) -> None:
    source = tmp_path / "source"
    node.apply("web", **app({"path": "conf/app.ini", "content_from": str(source)}))
    eventually(lambda: "does not exist; create it on this node" in node.status("web").get("healthy", {}).get("msg", ""))
    source.write_text("s3cret-2")
    node.reaches("web", "running")
    eventually(lambda: said(node) == "s3cret-2\n")
    assert not any(b"s3cret-2" in path.read_bytes() for path in node.work_dir.glob("agent.db*"))


def test_a_restart_takes_the_file_of_the_node_as_it_is_now(node: Node, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_text("one")
    node.apply("web", **app({"path": "conf/app.ini", "content_from": str(source)}))
    node.reaches("web", "running", revision=1)
    source.write_text("two")
    os.kill(node.pid("web"), 9)
    eventually(lambda: said(node) == "one\none\n")
    node.request("POST", "/v1/apps/web/restart")
    node.reaches("web", "running", revision=2)
    eventually(lambda: said(node) == "one\none\ntwo\n")


def test_what_is_started_again_finds_the_file_again_though_somebody_has_deleted_the_release(node: Node) -> None:
    node.apply("web", **app(ini("one")))
    node.reaches("web", "running")
    (release(node, 1) / ".artifacts.json").unlink()
    (release(node, 1) / "conf/app.ini").unlink()
    os.kill(node.pid("web"), 9)
    eventually((release(node, 1) / "conf/app.ini").exists)


@root_only
@pytest.mark.parametrize("kind", ["binary", "script"])
def test_an_app_of_another_user_can_read_its_file_and_nobody_else_can(node: Node, kind: str) -> None:
    files = [ini("mine", mode="0400"), {"path": "run.sh", "content": "#!/bin/sh\nid -u; cat conf/app.ini\n", "mode": "0500"}]
    command = ["./run.sh"] if kind == "binary" else ["cat run.sh > /dev/null", "id -u", "cat conf/app.ini"]
    more = {"restart": {"policy": "never"}} if kind == "binary" else {}
    node.apply("web", **{"type": kind, "command": command, "files": files, "user": "65534", "rollout": QUICK["rollout"], **more})
    node.reaches("web", "completed")
    assert said(node) == "65534\nmine"
    status = (release(node, 1) / "conf/app.ini").stat()
    assert (status.st_uid, oct(status.st_mode)[-4:]) == (65534, "0400")


def test_a_script_and_its_check_find_the_file(node: Node) -> None:
    script = {"type": "script", "command": ["cat conf/app.ini > done"], "check": "cmp conf/app.ini done"}
    node.apply("web", **script, files=[ini("one")])
    node.reaches("web", "completed")
    assert (release(node, 1) / "done").read_text() == "one"


def test_removing_the_app_leaves_nothing_of_its_files(node: Node) -> None:
    for content in ("s3cret-1", "s3cret-2"):
        revision = node.apply("web", **app(ini(content)))["revision"]
        node.reaches("web", "running", revision=revision)
    node.request("DELETE", "/v1/apps/web")
    eventually(lambda: node.status("web") == {})
    assert sorted(path.name for path in (node.work_dir / "apps/web").iterdir()) == ["logs"]


def test_only_the_newest_few_releases_stay(node: Node) -> None:
    for number in range(8):
        revision = node.apply("web", **app(ini(f"{number}")))["revision"]
        node.reaches("web", "running", revision=revision)
    eventually(lambda: sorted(int(path.name) for path in release(node, 1).parent.glob("[0-9]*")) == [4, 5, 6, 7, 8])
