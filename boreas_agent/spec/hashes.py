"""What identifies a request and what an instance is made of, and how a package looks to people."""

from __future__ import annotations

import hashlib
from typing import Any

from boreas_agent.spec.artifacts import made_of, masked_artifacts
from boreas_agent.spec.common import sorted_json
from boreas_agent.spec.files import contents, masked_files, without_contents
from boreas_agent.spec.pkg import Pkg
from boreas_agent.spec.probes import masked_headers

_NOT_THE_INSTANCE = frozenset({"depends_on", "replicas", "restart", "health", "rollout", "stop", "hooks", "pull_policy"})
"""Fields that say how the agent treats instances, not what they are made of: changing them replaces nothing."""


def canonical(pkg: Pkg) -> dict[str, Any]:
    """The pkg as JSON values, with everything left out that equals its default. The inner values are shared: only for reading."""
    return dict(pkg.canonical_form)


def masked(pkg: Pkg) -> dict[str, Any]:
    """The canonical form as people may see it: without what is in the environment, files, probes' headers, log options and queries."""
    data = canonical(pkg)
    if data.get("environment"):
        data["environment"] = dict.fromkeys(data["environment"], "***")
    if pkg.health.has_headers:
        data["health"] = masked_headers(data["health"])
    if pkg.log.options:
        data["log"] = data["log"] | {"options": dict.fromkeys(pkg.log.options, "***")}
    if data.get("artifacts"):
        data["artifacts"] = masked_artifacts(data["artifacts"])
    if data.get("files"):
        data["files"] = masked_files(data["files"])
    return data


def masked_text(pkg: Pkg) -> str:
    """:func:`masked` as JSON."""
    probed = "health" in pkg.canonical_form and pkg.health.has_headers
    secretive = bool(pkg.environment or probed or pkg.log.options or pkg.files) or bool(getattr(pkg, "artifacts", ()))
    return sorted_json(masked(pkg)) if secretive else pkg.canonical_text


def spec_hash(version: str, pkg: Pkg) -> str:
    """Identifies the request: equal hashes are the same desired state."""
    return _digest(f'{{"pkg":{pkg.canonical_text},"version":{sorted_json(version)}}}')


def instance_hash(version: str, pkg: Pkg, generation: int, revision: int) -> str:
    """Identifies what an instance is made of.

    ``generation`` is the revision that last asked for everything to be replaced (restart, force). A script
    runs once a revision, so its revision is part of it.
    """
    generation = revision if pkg.type == "script" else generation
    return _digest(f'{{"generation":{generation},"pkg":{_made_of(pkg)},"version":{sorted_json(version)}}}')


def lasting_hash(version: str, pkg: Pkg, generation: int) -> str:
    """Identifies what of a running instance cannot be changed: all that :func:`instance_hash` is made of, but for :func:`contents_hash`."""
    made = sorted_json(_parts(pkg) | {"files": without_contents(pkg.canonical_form.get("files", ()))})
    return _digest(f'{{"generation":{generation},"pkg":{made},"version":{sorted_json(version)}}}')


def _made_of(pkg: Pkg) -> str:
    if not getattr(pkg, "artifacts", ()) and _NOT_THE_INSTANCE.isdisjoint(pkg.canonical_form):
        return pkg.canonical_text
    return sorted_json(_parts(pkg))


def _parts(pkg: Pkg) -> dict[str, Any]:
    artifacts = getattr(pkg, "artifacts", ())
    made = {key: value for key, value in pkg.canonical_form.items() if key not in _NOT_THE_INSTANCE}
    return made | {"artifacts": made_of(artifacts)} if artifacts else made


def release_hash(pkg: Pkg) -> str:
    """Identifies what is made ready on the node's disk for a revision, of artifacts and files; empty where the pkg has neither.

    What a running instance can be told to read anew is left to :func:`contents_hash`.
    """
    artifacts = made_of(getattr(pkg, "artifacts", ()))
    if not pkg.files:
        return _digest(sorted_json(artifacts)) if artifacts else ""
    return _digest(sorted_json({"artifacts": artifacts, "files": without_contents(pkg.canonical_form["files"]), "user": pkg.user}))


def contents_hash(pkg: Pkg) -> str:
    """Identifies what the files with ``on_change: signal`` hold; empty where there are none."""
    told = contents(pkg.canonical_form["files"]) if pkg.files else []
    return _digest(sorted_json(told)) if told else ""


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
