"""Files as users ask for them: what is refused, what they look like to people, and what makes two of them the same."""

from __future__ import annotations

import json
from typing import Any

import pytest

from boreas_agent.errors import Invalid
from boreas_agent.spec import canonical, contents_hash, instance_hash, lasting_hash, masked_text, parse_pkg, release_hash, spec_hash

BINARY: dict[str, Any] = {"type": "binary", "command": ["./app"]}
SCRIPT: dict[str, Any] = {"type": "script", "command": ["true"]}
DOCKER: dict[str, Any] = {"type": "docker", "image": "web"}
INNER = {"path": "conf/app.ini", "content": "s3cret"}
MOUNTED = {"path": "/etc/app.ini", "content": "s3cret"}
SHA = "a" * 64


def faults(base: dict[str, Any], *files: dict[str, Any], **more: Any) -> dict[str, str]:
    with pytest.raises(Invalid) as refused:
        parse_pkg({**base, "files": list(files), **more})
    return {fault.field.removeprefix("pkg."): fault.message for fault in refused.value.fields}


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ({"content": None}, "content", "is required; or give content_from"),
        ({"content_from": "/etc/x"}, "content_from", "give either content or content_from, not both"),
        ({"content": "a\0b"}, "content", "must not contain NUL"),
        ({"content": "ü" * (128 * 1024 + 1)}, "content", "must not be longer than 262144 bytes; put it into a file of the node"),
        ({"content": {"a": 1}}, "content", "must be a string"),
        ({"content": None, "content_from": "etc/x"}, "content_from", "must be an absolute path"),
        ({"mode": "4755"}, "mode", 'must be permissions like "0755", without setuid'),
        ({"mode": 644}, "mode", "must be a string"),
        ({"on_change": "ignore"}, "on_change", "must be 'restart' or 'signal'"),
        ({"signal": "SIGHUP"}, "signal", "is sent only with on_change: signal; give that, or leave this out"),
        ({"on_change": "signal", "signal": "KILL"}, "signal", "SIGKILL cannot be handled by any program"),
        ({"on_change": "signal", "signal": "SIGNIX"}, "signal", "'SIGNIX' is not the name of a signal (for example SIGTERM)"),
        ({"path": None}, "path", "must be a string"),
        ({"owner": "me"}, "owner", "unknown field"),
    ],
)
@pytest.mark.parametrize(("base", "file"), [(BINARY, INNER), (SCRIPT, INNER), (DOCKER, MOUNTED)])
def test_what_is_wrong_is_named(base: dict[str, Any], file: dict[str, Any], change: dict[str, Any], field: str, words: str) -> None:
    found = faults(base, file | change)
    assert list(found) == [f"files[0].{field}"]
    assert words in found[f"files[0].{field}"]
    assert "s3cret" not in str(found)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/etc/app.ini", "must be relative to the release folder"),
        ("a/../../b", "must not contain '..'"),
        ("", "must name a file below the release folder"),
        ("./", "must name a file below the release folder"),
        ("a\nb", "must not contain control characters"),
        ("a/" + "b" * 256, "at most 255 bytes"),
        (".artifacts.json", "is the agent's own file"),
    ],
)
def test_in_a_release_a_path_stays_inside(path: str, words: str) -> None:
    assert words in faults(BINARY, INNER | {"path": path})["files[0].path"]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("etc/app.ini", "must be an absolute path"),
        ("/etc/../app.ini", "without '..'"),
        ("/", "must name a file in the container"),
        ("/a\nb", "must not contain control characters"),
        ("/" + "b" * 256, "at most 255 bytes"),
    ],
)
def test_in_a_container_a_path_is_absolute(path: str, words: str) -> None:
    assert words in faults(DOCKER, MOUNTED | {"path": path})["files[0].path"]


def test_two_files_may_not_claim_one_path() -> None:
    assert faults(BINARY, INNER, INNER | {"path": "./conf//app.ini"}) == {"files[1].path": "conf/app.ini is the path of files[0] too"}
    assert faults(DOCKER, MOUNTED, MOUNTED | {"path": "/etc//app.ini/"}) == {"files[1].path": "/etc/app.ini is the path of files[0] too"}
    assert faults(BINARY, INNER, INNER | {"path": "conf"}) == {"files[0].path": "conf is a file, by files[1]"}
    assert faults(DOCKER, MOUNTED, MOUNTED | {"path": "/etc/app.ini/x"}) == {"files[1].path": "/etc/app.ini is a file, by files[0]"}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (
            {"volumes": [{"host_path": "/srv", "container_path": "/etc/app.ini/"}]},
            "/etc/app.ini is mounted twice: volumes[0] is there, too",
        ),
        ({"volumes": [{"host_path": "/srv", "container_path": "/etc/app.ini/x"}]}, "/etc/app.ini is a folder, by volumes[0]"),
        ({"tmpfs": "/etc/app.ini"}, "/etc/app.ini is mounted twice: tmpfs is there, too"),
    ],
)
def test_a_file_is_not_mounted_where_something_else_is(more: dict[str, Any], words: str) -> None:
    assert faults(DOCKER, MOUNTED, **more) == {"files[0].path": words}


def test_a_file_may_lie_in_a_volume() -> None:
    parse_pkg({**DOCKER, "files": [MOUNTED], "volumes": [{"host_path": "/srv", "container_path": "/etc"}], "tmpfs": "/run"})


def test_volumes_are_as_free_as_ever_where_there_are_no_files() -> None:
    parse_pkg({**DOCKER, "volumes": [{"host_path": "/", "container_path": "/"}, {"host_path": "/", "container_path": "/a/../b"}]})


@pytest.mark.parametrize(
    ("artifact", "words"),
    [
        ({"dest": "conf"}, "conf is a file, by artifacts[0]"),
        ({"dest": "conf/app.ini/x"}, "conf/app.ini is a folder, by artifacts[0]"),
        ({"dest": "conf/app.ini", "unpack": True}, "conf/app.ini is a folder, by artifacts[0]"),
    ],
)
def test_a_file_and_what_an_artifact_brings_fit_together(artifact: dict[str, Any], words: str) -> None:
    brought = {"url": "https://repo.example.com/app", "sha256": SHA, **artifact}
    assert faults(BINARY, INNER, artifacts=[brought]) == {"files[0].path": words}


def test_a_file_may_take_the_place_of_an_artifact() -> None:
    same = {"url": "https://repo.example.com/app", "sha256": SHA, "dest": "conf/app.ini"}
    parse_pkg({**BINARY, "files": [INNER], "artifacts": [same, same | {"dest": "conf", "unpack": True}]})


def test_so_many_files_are_too_many() -> None:
    many = [{"path": f"{n}", "content": ""} for n in range(257)]
    assert faults(BINARY, *many) == {"files": "must not have more than 256 entries"}


@pytest.mark.parametrize(("base", "file"), [(BINARY, INNER), (SCRIPT, INNER), (DOCKER, MOUNTED)])
def test_what_files_hold_is_seen_by_nobody(base: dict[str, Any], file: dict[str, Any]) -> None:
    pkg = parse_pkg({**base, "files": [file, {"path": file["path"] + "2", "content_from": "/etc/x"}]})
    assert json.loads(masked_text(pkg))["files"] == [file | {"content": "***"}, {"path": file["path"] + "2", "content_from": "/etc/x"}]
    assert "s3cret" not in masked_text(pkg)
    assert canonical(pkg)["files"][0] == file


@pytest.mark.parametrize("change", [{"content": "other"}, {"mode": "0600"}, {"content": None, "content_from": "/etc/x"}, {"path": "other"}])
def test_a_change_is_another_revision_and_another_instance(change: dict[str, Any]) -> None:
    old = parse_pkg({**BINARY, "files": [INNER]})
    new = parse_pkg({**BINARY, "files": [{key: value for key, value in (INNER | change).items() if value is not None}]})
    assert spec_hash("v1", old) != spec_hash("v1", new)
    assert instance_hash("v1", old, 1, 1) != instance_hash("v1", new, 1, 1)
    assert release_hash(old) != release_hash(new)


def test_without_files_and_with_defaults_written_out_hashes_are_what_they_always_were() -> None:
    plain = parse_pkg({"type": "binary", "command": ["/bin/sleep", "1"], "stop": {"grace_seconds": 1}, "files": []})
    assert (spec_hash("v1", plain), instance_hash("v1", plain, 1, 1)) == (
        "bd9ca2c13524da7b9724fe9d2af36197",
        "8bf5347bc22c9bd79e4491c019f2a96f",
    )
    given = parse_pkg({**BINARY, "files": [INNER | {"mode": "644", "on_change": "restart"}]})
    assert canonical(given) == canonical(parse_pkg({**BINARY, "files": [INNER]}))


# --- contents that a running instance can be told of ---------------------------------------------


def hashes(**change: Any) -> tuple[str, str, str, str]:
    told = INNER | {"on_change": "signal"} | change.pop("file", {})
    pkg = parse_pkg({**BINARY, "files": [told], **change})
    return instance_hash("v1", pkg, 1, 2), lasting_hash("v1", pkg, 1), release_hash(pkg), contents_hash(pkg)


@pytest.mark.parametrize("file", [{"content": "other"}, {"content": None, "content_from": "/etc/x"}, {"signal": "SIGUSR1"}])
def test_another_content_is_another_instance_that_a_running_one_can_become(file: dict[str, Any]) -> None:
    before, after = hashes(), hashes(file=file)
    assert (before[0] != after[0], before[1] == after[1], before[2] == after[2], before[3] != after[3]) == (True,) * 4


@pytest.mark.parametrize("file", [{"mode": "0600"}, {"path": "elsewhere"}, {"on_change": "restart"}])
def test_another_file_is_another_instance_that_none_can_become(file: dict[str, Any]) -> None:
    before, after = hashes(), hashes(file=file)
    assert (before[0] != after[0], before[1] != after[1], before[2] != after[2]) == (True,) * 3


def test_what_says_how_instances_are_treated_is_in_no_hash_of_what_they_are() -> None:
    assert hashes() == hashes(replicas=3, stop={"grace_seconds": 3}, health={"readiness": {"tcp": {"port": 80}}})


def test_a_script_is_told_of_nothing() -> None:
    found = faults(SCRIPT, INNER | {"on_change": "signal"})
    assert found == {"files[0].on_change": "a script runs anew with each revision, and then reads its files; use restart"}
