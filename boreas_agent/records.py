"""The revision record that every instance carries, and the database stores: one JSON text.

A record written by any version of the agent can be read by any later one; a field that this version
does not know makes it unreadable (``Invalid``), and then the instance is left alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from boreas_agent.clock import parse_timestamp, timestamp
from boreas_agent.errors import FieldError, Invalid
from boreas_agent.jsontext import quoted
from boreas_agent.model import Instance, InstanceName, Revision
from boreas_agent.spec import parse_pkg


def encode(revision: Revision) -> str:
    """The revision as JSON text."""
    # Written out: an encoder for a whole object costs more than all of its texts, and the pkg is text already.
    return (
        f'{{"app":{quoted(revision.app)},"revision":{revision.revision},"version":{quoted(revision.version)},'
        f'"kind":{quoted(revision.kind)},"generation":{revision.generation},"spec_hash":{quoted(revision.spec_hash)},'
        f'"instance_hash":{quoted(revision.instance_hash)},"submitted_at":{quoted(timestamp(revision.submitted_at))},'
        f'"submitted_by":{quoted(revision.submitted_by)},"pkg":{revision.pkg.canonical_text}}}'
    )


def decode(text: str) -> Revision:
    """The inverse of :func:`encode`; raises Invalid."""
    try:
        data: dict[str, Any] = json.loads(text)
        return Revision(**data | {"pkg": parse_pkg(data["pkg"]), "submitted_at": parse_timestamp(data["submitted_at"])})
    except (ValueError, TypeError, KeyError) as error:
        raise Invalid((FieldError("record", f"cannot read the revision record: {error}"),)) from error


def carried(record: str, name: InstanceName, image: str = "", digest: str = "") -> Instance:
    """The instance ``name`` as the ``record`` that it carries describes it: what it was made from, or has gone over to. Raises Invalid."""
    revision = decode(record)
    return Instance(name, revision.version, revision.instance_hash, revision.pkg, record, image, digest)


def instances(revision: Revision, replicas: Iterable[int], image: str = "", digest: str = "") -> dict[int, Instance]:
    """The instances of ``revision`` for these replicas; ``image`` and ``digest``: the very bytes, where they are known."""
    record = encode(revision)
    return {
        replica: Instance(
            InstanceName(revision.app, revision.revision, replica),
            revision.version,
            revision.instance_hash,
            revision.pkg,
            record,
            image,
            digest,
        )
        for replica in replicas
    }
