"""What identifies a request and what an instance is made of, and how a package looks to people."""

from __future__ import annotations

import hashlib
from typing import Any

from boreas_agent import jsontext
from boreas_agent.spec.artifacts import made_of, masked_artifacts
from boreas_agent.spec.files import contents, masked_files, without_contents
from boreas_agent.spec.pkg import Pkg
from boreas_agent.spec.probes import masked_headers

_NOT_THE_INSTANCE = frozenset({"depends_on", "replicas", "restart", "health", "rollout", "stop", "hooks", "pull_policy"})
"""Fields that say how the agent treats instances, not what they are made of: changing them replaces nothing."""


def canonical(pkg: Pkg) -> dict[str, Any]:
    """The pkg as JSON values, with everything left out that equals its default. The inner values are shared: only for reading."""
    return dict(pkg.canonical_form)


def masked_text(pkg: Pkg) -> str:
    """The canonical form as people may see it: without what is in the environment, files, probes' headers, log options and queries."""
    hidden = _hidden(pkg)
    if not hidden:
        return pkg.canonical_text
    return jsontext.joined({**pkg.canonical_texts, **{name: jsontext.canonical(shown) for name, shown in hidden.items()}})


def _hidden(pkg: Pkg) -> dict[str, Any]:
    """The fields that are not for everybody, with what of them is."""
    form, hidden = pkg.canonical_form, dict[str, Any]()
    if "environment" in form:
        hidden["environment"] = dict.fromkeys(pkg.environment, "***")
    if "health" in form and pkg.health.has_headers:
        hidden["health"] = masked_headers(form["health"])
    if pkg.log.options:
        hidden["log"] = form["log"] | {"options": dict.fromkeys(pkg.log.options, "***")}
    if "artifacts" in form:
        hidden["artifacts"] = masked_artifacts(form["artifacts"])
    if "files" in form:
        hidden["files"] = masked_files(form["files"])
    return hidden


def spec_hash(version: str, pkg: Pkg) -> str:
    """Identifies the request: equal hashes are the same desired state."""
    return _digest(f'{{"pkg":{pkg.canonical_text},"version":{jsontext.quoted(version)}}}')


def instance_hash(version: str, pkg: Pkg, generation: int, revision: int) -> str:
    """Identifies what an instance is made of.

    ``generation`` is the revision that last asked for everything to be replaced (restart, force). A script
    runs once a revision, so its revision is part of it.
    """
    generation = revision if pkg.type == "script" else generation
    return _digest(f'{{"generation":{generation},"pkg":{jsontext.joined(_parts(pkg))},"version":{jsontext.quoted(version)}}}')


def lasting_hash(version: str, pkg: Pkg, generation: int) -> str:
    """Identifies what of a running instance cannot be changed: all that :func:`instance_hash` is made of, but for :func:`contents_hash`."""
    files = jsontext.canonical(without_contents(pkg.canonical_form.get("files", ())))
    made = jsontext.joined({**_parts(pkg), "files": files})
    return _digest(f'{{"generation":{generation},"pkg":{made},"version":{jsontext.quoted(version)}}}')


def _parts(pkg: Pkg) -> dict[str, str]:
    """The texts of what an instance is made of, by field."""
    made = {name: text for name, text in pkg.canonical_texts.items() if name not in _NOT_THE_INSTANCE}
    if "artifacts" in made:
        made["artifacts"] = jsontext.canonical(made_of(getattr(pkg, "artifacts", ())))
    return made


def release_hash(pkg: Pkg) -> str:
    """Identifies what is made ready on the node's disk for a revision, of artifacts and files; empty where the pkg has neither.

    What a running instance can be told to read anew is left to :func:`contents_hash`.
    """
    artifacts = made_of(getattr(pkg, "artifacts", ()))
    if not pkg.files:
        return _digest(jsontext.canonical(artifacts)) if artifacts else ""
    return _digest(jsontext.canonical({"artifacts": artifacts, "files": without_contents(pkg.canonical_form["files"]), "user": pkg.user}))


def contents_hash(pkg: Pkg) -> str:
    """Identifies what the files with ``on_change: signal`` hold; empty where there are none."""
    told = contents(pkg.canonical_form["files"]) if pkg.files else []
    return _digest(jsontext.canonical(told)) if told else ""


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
