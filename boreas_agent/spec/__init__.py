"""What users ask for: the models of ``pkg``, their canonical form, and the hashes made from it.

These models are the contract (section 3): they validate requests, and OpenAPI is made from them. An
unknown field is an error.
"""

from boreas_agent.spec.artifacts import MARKER, Artifact
from boreas_agent.spec.confinement import Volume
from boreas_agent.spec.dependencies import MAX_DEPENDENCIES, Dependency
from boreas_agent.spec.docker import DockerPkg
from boreas_agent.spec.fields import APP_PATTERN
from boreas_agent.spec.files import ConfigFile, MountedFile, ReleaseFile
from boreas_agent.spec.hashes import canonical, contents_hash, instance_hash, lasting_hash, masked_text, release_hash, spec_hash
from boreas_agent.spec.hooks import Hook
from boreas_agent.spec.logs import LogPolicy
from boreas_agent.spec.networking import Network, Port, overlap
from boreas_agent.spec.parsing import Submission, checked_app, faults_of, parse_pkg, parse_submission
from boreas_agent.spec.pkg import Pkg, max_attempts, restart_policy
from boreas_agent.spec.policies import MAX_REPLICAS, Restart, Rollout, StopPolicy
from boreas_agent.spec.processes import BinaryPkg, ScriptPkg
from boreas_agent.spec.resources import RLIMITS, EnvironmentFile, Resources, as_bytes
from boreas_agent.spec.schedules import Schedule

__all__ = [
    "APP_PATTERN",
    "MARKER",
    "MAX_DEPENDENCIES",
    "MAX_REPLICAS",
    "RLIMITS",
    "Artifact",
    "BinaryPkg",
    "ConfigFile",
    "Dependency",
    "DockerPkg",
    "EnvironmentFile",
    "Hook",
    "LogPolicy",
    "MountedFile",
    "Network",
    "Pkg",
    "Port",
    "ReleaseFile",
    "Resources",
    "Restart",
    "Rollout",
    "Schedule",
    "ScriptPkg",
    "StopPolicy",
    "Submission",
    "Volume",
    "as_bytes",
    "canonical",
    "checked_app",
    "contents_hash",
    "faults_of",
    "instance_hash",
    "lasting_hash",
    "masked_text",
    "max_attempts",
    "overlap",
    "parse_pkg",
    "parse_submission",
    "release_hash",
    "restart_policy",
    "spec_hash",
]
