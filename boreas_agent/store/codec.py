"""Values to rows and back. The only place that knows the order of the columns.

What people read is clipped to a bounded length here, whatever wrote it; what the agent itself needs back is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType

from pydantic import TypeAdapter

from boreas_agent import records, spec
from boreas_agent.clock import parse_timestamp, timestamp
from boreas_agent.model import Attempts, Deadline, Drained, Event, Exit, Head, Health, Hold, InstanceName, Revision, Status

Row = tuple[str | int | float | None, ...]
Rows = Sequence[tuple[str, Row]]
"""Rows with the name of their table."""

_LONGEST_MESSAGE = 4096
_LONGEST_OUTPUT = 16384
_ATTEMPTS: TypeAdapter[dict[int, Attempts]] = TypeAdapter(dict[int, Attempts])
_HOLD: TypeAdapter[Hold] = TypeAdapter(Hold)
_DEADLINE: TypeAdapter[Deadline] = TypeAdapter(Deadline)
_DRAINED: TypeAdapter[Drained | None] = TypeAdapter(Drained | None)

HEAD_COLUMNS = "h.status, h.level, h.msg, h.updated, h.proven, h.attempts, h.hold, h.unknown_since, h.homes, r.record"
"""What ``head`` takes, from heads ``h`` and revisions ``r``."""


def revision_row(revision: Revision) -> Row:
    """For ``revisions``."""
    return (
        revision.app,
        revision.revision,
        revision.version,
        revision.kind,
        revision.pkg.type,
        records.encode(revision),
        spec.masked_text(revision.pkg),
        timestamp(revision.submitted_at),
        revision.submitted_by,
    )


def head_row(head: Head) -> Row:
    """For ``heads``."""
    return (
        head.app,
        head.revision.revision,
        0,
        head.health.status.value,
        head.health.level,
        head.health.msg,
        timestamp(head.updated),
        head.proven,
        _ATTEMPTS.dump_json(dict(head.attempts)).decode() if head.attempts else "{}",
        _HOLD.dump_json(head.hold).decode() if head.hold else None,
        _DEADLINE.dump_json(head.unknown_since).decode() if head.unknown_since else None,
        " ".join(sorted(head.homes)),
    )


def gone_row(app: str, newest: int, now: datetime) -> Row:
    """For ``heads``: nothing is left of the app but its last revision number."""
    return (app, newest, 1, Status.REMOVING.value, 0, "removed", timestamp(now), "", "{}", None, None, "")


def head(row: tuple[str, int, str, str, str, str, str | None, str | None, str, str]) -> Head:
    """The inverse of ``head_row`` and ``revision_row``, from ``HEAD_COLUMNS``; raises Invalid for a record of a newer version."""
    status, level, msg, updated, proven, attempts, hold, unknown_since, homes, record = row
    return Head(
        revision=records.decode(record),
        health=Health(level, Status(status), msg),
        updated=parse_timestamp(updated),
        hold=_HOLD.validate_json(hold) if hold else None,
        proven=proven,
        attempts=frozen(_ATTEMPTS.validate_json(attempts)),
        unknown_since=_DEADLINE.validate_json(unknown_since) if unknown_since else None,
        homes=frozenset(homes.split()),
    )


def frozen(attempts: Mapping[int, Attempts]) -> Mapping[int, Attempts]:
    """A copy that nobody can change."""
    return MappingProxyType(dict(attempts))


def event_row(event: Event, now: datetime) -> Row:
    """For ``events``."""
    return (timestamp(now), event.app, event.revision, event.kind, event.message[:_LONGEST_MESSAGE])


def drained_row(drained: Drained | None) -> Row:
    """For ``node``."""
    return ("drained", _DRAINED.dump_json(drained).decode())


def drained(value: str) -> Drained | None:
    """The inverse of ``drained_row``, from its value."""
    return _DRAINED.validate_json(value)


def health_row(revision: Revision, health: Health, now: datetime) -> Row:
    """For ``health``."""
    msg = health.msg[:_LONGEST_MESSAGE]
    return (revision.app, revision.version, revision.revision, timestamp(now), health.status.value, health.level, msg)


def exit_row(name: InstanceName, ended: Exit) -> Row:
    """For ``exits``."""
    return (
        name.app,
        name.revision,
        name.replica,
        ended.run,
        timestamp(ended.started_at) if ended.started_at else None,
        timestamp(ended.exited_at),
        ended.code,
        ended.signal,
        int(ended.oom_killed),
        ended.reason[:_LONGEST_MESSAGE],
        ended.seconds,
        ended.output_tail[-_LONGEST_OUTPUT:],
    )
