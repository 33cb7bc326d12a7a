"""The whole exception tree. A class says what its catcher should do next.

    BoreasError
    ├── Transient            try again later, with backoff
    │   ├── Unavailable      the driver cannot answer at all: what runs is unknown, not absent
    │   ├── HookFailed       the app's own hook says no: it may say yes later, but a deployment does not wait for it
    │   ├── Missing          what is to be fetched does not exist, or is something else: it may come, but a deployment does not wait for it
    │   └── CannotRecord     the database cannot commit (disk full, damaged): nothing was acknowledged
    ├── Terminal             trying again is useless until a new revision (or a person) changes something
    ├── Conflict             the request contradicts what is recorded; nothing was changed
    ├── NotFound             there is no such app or revision
    ├── Invalid              the request is malformed; carries the fields that are wrong
    └── StartupError         the agent cannot start; one clear sentence, exit status 2
        └── Unusable         a certificate or token file is wrong: no start with it; later on, the old one stays in force

Messages are sentences a user reads: they name the thing, the value and the way out, and begin with
"cannot" where something failed.
"""

from __future__ import annotations

from typing import NamedTuple


class BoreasError(Exception):
    """Base of everything this package raises on purpose."""


class Transient(BoreasError):
    """It may work later without anybody changing anything: retry with backoff."""


class Unavailable(Transient):
    """A driver cannot answer (engine away, hung, disabled). Unknown is not absent: plan nothing."""


class Missing(Transient):
    """What is to be fetched does not exist, or is not what was asked for: retry with backoff, but count the deployment as failed."""


class HookFailed(Transient):
    """A hook of the app failed: retry with backoff, but count the deployment as failed."""


class CannotRecord(Transient):
    """A commit failed, so nothing of it is durable and nothing may be acknowledged."""


class Terminal(BoreasError):
    """It fails the same way every time until a new revision or a person changes something."""


class Conflict(BoreasError):
    """The request contradicts the recorded state; nothing was changed."""


class NotFound(BoreasError):
    """No such app, or no such revision of it."""


class StartupError(BoreasError):
    """The agent cannot start. The message is the one line the user sees (exit status 2)."""


class Unusable(StartupError):
    """A file that says who may call cannot be used. While the agent runs, what was read before stays in force."""


class FieldError(NamedTuple):
    """One wrong field: ``pkg.ports[0].host_port`` and a sentence about it."""

    field: str
    message: str


class Invalid(BoreasError):
    """The request is well-formed JSON but not a valid request; ``fields`` names every fault."""

    def __init__(self, fields: tuple[FieldError, ...]) -> None:
        self.fields = fields
        super().__init__("; ".join(f"{f.field}: {f.message}" for f in fields))
