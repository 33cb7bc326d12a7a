"""The record that every instance carries."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from boreas_agent import records
from boreas_agent.errors import Invalid
from boreas_agent.model import InstanceName, Revision
from boreas_agent.spec import instance_hash, parse_pkg, spec_hash


def revision(**pkg: Any) -> Revision:
    made_of = parse_pkg({"type": "docker", "image": "nginx:1.27"} | pkg)
    return Revision(
        app="web",
        revision=7,
        version="v1",
        kind="apply",
        generation=3,
        pkg=made_of,
        spec_hash=spec_hash("v1", made_of),
        instance_hash=instance_hash("v1", made_of, 3, 7),
        submitted_at=datetime(2024, 5, 6, 7, 8, 9, 123000, UTC),
        submitted_by="api 127.0.0.1",
    )


PKGS: list[dict[str, Any]] = [
    {},
    {"replicas": 0, "user": 1000, "args": ["a", "b\n"], "environment": {"A.b": "ü\t"}, "working_dir": "/srv"},
    {"ports": [{"host": 80, "container": 8080}], "volumes": [{"host_path": "/d", "container_path": "/d", "read_only": True}]},
    {"restart": {"policy": "on-failure", "max_attempts": 2, "factor": 1.5}, "stop": {"signal": "int", "grace_seconds": 0.5}},
    {"rollout": {"min_healthy_seconds": 0}},
]


@pytest.mark.parametrize("pkg", PKGS)
def test_a_record_reads_back_as_the_revision_it_was_made_from(pkg: dict[str, Any]) -> None:
    written = revision(**pkg)
    read = records.decode(records.encode(written))
    assert read == written
    assert spec_hash(read.version, read.pkg) == written.spec_hash
    assert instance_hash(read.version, read.pkg, read.generation, read.revision) == written.instance_hash


@pytest.mark.parametrize(
    "pkg", [{"type": "script", "image": None, "script": "exit 0"}, {"type": "binary", "image": None, "command": ["/bin/true"]}]
)
def test_programs_and_scripts_read_back_too(pkg: dict[str, Any]) -> None:
    assert records.decode(records.encode(revision(**pkg))) == revision(**pkg)


def test_a_record_with_a_field_of_a_later_version_is_unreadable_instead_of_half_read() -> None:
    data = json.loads(records.encode(revision()))
    with pytest.raises(Invalid, match="cannot read the revision record"):
        records.decode(json.dumps(data | {"later": 1}))
    with pytest.raises(Invalid, match=r"pkg\.later"):
        records.decode(json.dumps(data | {"pkg": data["pkg"] | {"later": 1}}))


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", '{"app": "web"}', "\x00"])
def test_what_is_no_record_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        records.decode(text)


def test_instances_are_named_by_revision_and_replica_and_carry_the_whole_record() -> None:
    three = revision(replicas=3)
    made = records.instances(three, range(3))
    assert {replica: one.name for replica, one in made.items()} == {replica: InstanceName("web", 7, replica) for replica in range(3)}
    assert {(one.version, one.hash, one.record) for one in made.values()} == {("v1", three.instance_hash, records.encode(three))}
    assert records.instances(three, ()) == {}
