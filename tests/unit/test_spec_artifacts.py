"""Artifacts as users ask for them: what is refused, what they look like to people, and what makes two of them the same."""

from __future__ import annotations

import json
from typing import Any

import pytest

from boreas_agent.errors import Invalid
from boreas_agent.spec import canonical, instance_hash, masked_text, parse_pkg, release_hash, spec_hash

SHA = "a" * 64
HTTPS = {"url": "https://repo.example.com/app-1.2", "sha256": SHA}
FILE = {"url": "file:///var/lib/boreas-artifacts/app"}


def binary(*artifacts: dict[str, Any], **more: Any) -> Any:
    return parse_pkg({"type": "binary", "command": ["./app"], "artifacts": list(artifacts), **more})


def faults(*artifacts: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(Invalid) as refused:
        binary(*artifacts)
    return {fault.field.removeprefix("pkg."): fault.message for fault in refused.value.fields}


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ({"url": "https://ci:secret@repo.example.com/app"}, "url", "must not contain a user or a password"),
        ({"url": "ftp://repo.example.com/app"}, "url", "must begin with https://, http:// or file:///"),
        ({"url": "repo.example.com/app"}, "url", "must begin with https://"),
        ({"url": "https:///app"}, "url", "must name a host"),
        ({"url": "https://[/app"}, "url", "is not an address"),
        ({"url": "https://repo.example.com/a#b"}, "url", "must not contain '#' or spaces"),
        ({"url": "file://host/app"}, "url", "must be file:/// and an absolute path"),
        ({"url": "file:///a/%2e%2e/b"}, "url", "must not contain '..'"),
        ({"url": "https://repo.example.com/"}, "dest", "is required: the address does not end in a file name"),
        ({"url": "https://repo.example.com/a%0ab"}, "dest", "is required"),
        ({"sha256": None}, "sha256", "is required for what comes over a network"),
        ({"sha256": "a" * 63}, "sha256", "must be a SHA-256 as 64 hexadecimal digits"),
        ({"mode": "4755"}, "mode", 'must be permissions like "0755"'),
        ({"mode": "rwx"}, "mode", 'must be permissions like "0755"'),
        ({"mode": 755}, "mode", "must be a string"),
        ({"dest": "/etc/passwd"}, "dest", "must be relative to the release folder"),
        ({"dest": "a/../../b"}, "dest", "must not contain '..'"),
        ({"dest": "a/" + "b" * 256}, "dest", "at most 255 bytes"),
        ({"dest": ""}, "dest", "is required"),
        ({"dest": ".artifacts.json"}, "dest", "is the agent's own file"),
        ({"unpack": "rar"}, "unpack", "must be 'tar', 'zip' or 'auto'"),
        ({"unpack": True, "mode": "0755"}, "mode", "is for single files"),
        ({"strip_components": 1}, "strip_components", "needs unpack"),
        ({"headers_from": "headers"}, "headers_from", "must be an absolute path"),
        ({"checksum": "x"}, "checksum", "unknown field"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], field: str, words: str) -> None:
    wrong = {key: value for key, value in (HTTPS | change).items() if value is not None}
    found = faults(wrong)
    assert list(found) == [f"artifacts[0].{field}"]
    assert words in found[f"artifacts[0].{field}"]
    assert "secret" not in str(found)


def test_headers_are_not_for_files() -> None:
    assert "is for http and https" in faults(FILE | {"headers_from": "/etc/boreas-agent/artifact-headers/x"})["artifacts[0].headers_from"]


@pytest.mark.parametrize(
    ("second", "words"),
    [
        (HTTPS, "app-1.2 is the place of artifacts[0] too"),
        (HTTPS | {"dest": "app-1.2/b"}, "app-1.2 is a file, by artifacts[0]"),
        (HTTPS | {"dest": "app-1.2", "unpack": True}, "app-1.2 is a file, by artifacts[0]"),
    ],
)
def test_two_artifacts_may_not_claim_one_place(second: dict[str, Any], words: str) -> None:
    assert faults(HTTPS, second) == {"artifacts[1].dest": words}


def test_archives_may_share_a_folder() -> None:
    binary(HTTPS | {"unpack": True}, HTTPS | {"unpack": "zip"}, HTTPS | {"dest": "./bin//app"})


def test_docker_apps_have_no_artifacts() -> None:
    with pytest.raises(Invalid, match="docker apps have no such field"):
        parse_pkg({"type": "docker", "image": "web", "artifacts": [HTTPS]})


@pytest.mark.parametrize(
    ("artifact", "place"),
    [
        (HTTPS, "app-1.2"),
        (HTTPS | {"url": "https://repo.example.com/a%20b?x=/y"}, "a b"),
        (HTTPS | {"dest": "./bin//app"}, "bin/app"),
        (HTTPS | {"unpack": True}, ""),
        (HTTPS | {"unpack": True, "dest": "lib/"}, "lib"),
        (FILE, "app"),
    ],
)
def test_where_it_goes(artifact: dict[str, Any], place: str) -> None:
    assert binary(artifact).artifacts[0].place == place


def test_values_of_queries_are_seen_by_nobody() -> None:
    pkg = binary(HTTPS | {"url": "https://repo.example.com/app?X-Sig=secret1&y=secret2&secret3"})
    assert json.loads(masked_text(pkg))["artifacts"][0]["url"] == "https://repo.example.com/app?X-Sig=***&y=***&***"
    assert "secret" not in masked_text(pkg)
    assert "secret" not in pkg.artifacts[0].shown
    assert "secret1" in json.dumps(canonical(pkg))


def test_the_same_bytes_by_another_link_are_another_request_but_the_same_instance() -> None:
    old, new = binary(HTTPS | {"url": "https://a/app?sig=1"}), binary({"url": "https://b/app?sig=2", "sha256": f"sha256:{SHA.upper()}"})
    assert spec_hash("v1", old) != spec_hash("v1", new)
    assert instance_hash("v1", old, 1, 1) == instance_hash("v1", new, 1, 2)
    assert release_hash(old) == release_hash(new)


@pytest.mark.parametrize(
    "change", [{"sha256": "b" * 64}, {"dest": "other"}, {"mode": "0700"}, {"unpack": "tar"}, {"url": "https://a/other"}]
)
def test_other_bytes_or_another_place_make_another_instance(change: dict[str, Any]) -> None:
    assert instance_hash("v1", binary(HTTPS), 1, 1) != instance_hash("v1", binary(HTTPS | change), 1, 1)


def test_a_file_without_a_checksum_is_told_by_its_path() -> None:
    assert release_hash(binary(FILE)) != release_hash(binary({"url": "file:///elsewhere/app"}))


def test_without_artifacts_hashes_are_what_they_always_were() -> None:
    pkg = parse_pkg({"type": "binary", "command": ["/bin/sleep", "1"], "stop": {"grace_seconds": 1}})
    assert (spec_hash("v1", pkg), instance_hash("v1", pkg, 1, 1)) == (
        "bd9ca2c13524da7b9724fe9d2af36197",
        "8bf5347bc22c9bd79e4491c019f2a96f",
    )
    assert release_hash(pkg) == ""


def test_unpack_true_is_auto_and_false_is_not_given() -> None:
    assert binary(HTTPS | {"unpack": True}) == binary(HTTPS | {"unpack": "auto"})
    assert canonical(binary(HTTPS | {"unpack": False})) == canonical(binary(HTTPS))
