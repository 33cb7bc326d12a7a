"""Any package, and what is in force where a user says nothing."""

from __future__ import annotations

from typing import Literal

from boreas_agent.spec.docker import DockerPkg
from boreas_agent.spec.processes import BinaryPkg, ScriptPkg

Pkg = DockerPkg | BinaryPkg | ScriptPkg


def restart_policy(pkg: Pkg) -> Literal["always", "on-failure", "never"]:
    """The policy in force: ``always`` by default, ``on-failure`` for scripts."""
    return pkg.restart.policy or ("on-failure" if pkg.type == "script" else "always")


def max_attempts(pkg: Pkg) -> int | None:
    """How often a failed instance is started in a row at most; None = without limit."""
    if pkg.type == "script":
        return pkg.restart.max_attempts or (3 if pkg.retries is None else pkg.retries + 1)
    return pkg.restart.max_attempts
