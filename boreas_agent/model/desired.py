"""What is wanted: revisions, the instances that are made of them, and what people put in between."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from msgspec import Struct

from boreas_agent.spec import Pkg, lasting_hash

RevisionKind = Literal["apply", "restart", "rollback", "remove"]


class InstanceName(Struct, frozen=True, order=True):
    """One replica of one revision of one app; with the node's identity, every real name derives from it."""

    app: str
    revision: int
    replica: int

    def __str__(self) -> str:
        return f"{self.app}.{self.revision}.{self.replica}"


class Revision(Struct, frozen=True):
    """One recorded desired state of an app. Revisions count up per app and are never rewritten.

    ``spec_hash`` identifies the request (version and canonical pkg): the same request again is no change.
    ``instance_hash`` identifies what an instance is made from; instances whose hash equals it are kept
    (a change of ``replicas`` alone replaces nothing, a restart or another version replaces all).
    ``generation`` is the revision that last asked for everything to be replaced (see ``spec.instance_hash``).
    """

    app: str
    revision: int
    version: str
    kind: RevisionKind
    generation: int
    pkg: Pkg
    spec_hash: str
    instance_hash: str
    submitted_at: datetime
    submitted_by: str

    @property
    def removed(self) -> bool:
        """Desired state is: absent."""
        return self.kind == "remove"

    @property
    def title(self) -> str:
        """What people call it."""
        return f"revision {self.revision} ({self.version})"

    @property
    def lasting_hash(self) -> str:
        """Equal for revisions between which a running instance can go over without a restart (see ``spec.lasting_hash``)."""
        return lasting_hash(self.version, self.pkg, self.generation)

    @property
    def wanted(self) -> int:
        """How many instances there should be."""
        return 0 if self.removed else self.pkg.replicas


class Hold(Struct, frozen=True):
    """People are at work on the app: leave it exactly as it is. ``until`` None = until released.

    ``until`` is wall-clock by nature (people name it), so it is only for display; the hold ends at
    boot second ``expires`` of boot ``boot_id``, or, on another boot, ``seconds`` after the agent's start.
    """

    by: str
    reason: str
    until: datetime | None
    seconds: float | None = None
    expires: float | None = None
    boot_id: str = ""


class Instance(Struct, frozen=True):
    """An instance as it should be: everything a driver needs to create it.

    ``record`` is the JSON text of the whole revision (``records.encode``). The instance carries
    it (a label, a file in its folder), so that an agent with an empty database adopts it.
    ``image`` names the very bytes that the revision runs, where that is known; ``digest`` says where they can be fetched again.
    """

    name: InstanceName
    version: str
    hash: str
    pkg: Pkg
    record: str
    image: str = ""
    digest: str = ""


class Drained(Struct, frozen=True):
    """The node is to run nothing, whatever its apps ask for, until somebody ends that; ``at`` is when it was asked for."""

    by: str
    reason: str
    at: datetime
