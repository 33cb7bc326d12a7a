"""Values to rows and back. The only place that knows the order of the columns.

What people read is clipped to a bounded length here, whatever wrote it; what the agent itself needs back is not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any

from msgspec import MsgspecError
from msgspec.json import Decoder
from msgspec.json import encode as _encoded
from msgspec.structs import replace

from boreas_agent import records, spec
from boreas_agent.clock import parse_timestamp, timestamp
from boreas_agent.errors import FieldError, Invalid
from boreas_agent.jsontext import quoted
from boreas_agent.model import (
    FALLEN_BACK,
    Attempts,
    Deadline,
    Deployment,
    Drained,
    Event,
    Exit,
    Good,
    Head,
    Health,
    Hold,
    InstanceName,
    PulledImage,
    Revision,
    ScriptRun,
    Stage,
    Status,
)

Row = tuple[str | int | float | None, ...]
Rows = Sequence[tuple[str, Row]]
"""Rows with the name of their table."""

_NOTHING_HOOKED: Mapping[str, str] = MappingProxyType({})
_LONGEST_MESSAGE = 4096
_LONGEST_OUTPUT = 16384
_ATTEMPTS = Decoder(dict[int, Attempts])
_HOLD = Decoder(Hold)
_DEADLINE = Decoder(Deadline)
_DRAINED: Decoder[Drained | None] = Decoder(Drained | None)

_UNREADABLE = (AttributeError, TypeError, ValueError, MsgspecError)

HEAD_COLUMNS = (
    "h.status, h.level, h.msg, h.updated, h.proven, h.attempts, h.hold, h.unknown_since, h.homes, h.deployment, h.good_image, "
    "h.hooked, h.good_digest, r.record, g.record"
)
"""What ``head`` takes, from heads ``h``, their revisions ``r`` and their good revisions ``g``."""


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
        _text(dict(head.attempts)) if head.attempts else "{}",
        _text(head.hold) if head.hold else None,
        _text(head.unknown_since) if head.unknown_since else None,
        " ".join(sorted(head.homes)),
        _deployment_text(head.deployment) if head.deployment else None,
        head.good.revision.revision if head.good else None,
        head.good.image if head.good else None,
        json.dumps(dict(head.hooked)) if head.hooked else None,
        head.good.digest if head.good else None,
    )


def _text(value: object) -> str:
    return _encoded(value).decode()


def gone_row(app: str, newest: int, now: datetime) -> Row:
    """For ``heads``: nothing is left of the app but its last revision number."""
    return (app, newest, 1, Status.REMOVING.value, 0, "removed", timestamp(now), "", "{}", None, None, "", None, None, None, None, None)


HeadRow = tuple[str, int, str, str, str, str, str | None, str | None, str, str | None, str | None, str | None, str | None, str, str | None]


def head(row: HeadRow) -> Head:
    """The inverse of ``head_row`` and ``revision_row``, from ``HEAD_COLUMNS``; raises Invalid for what a newer version has recorded."""
    try:
        return _head(row)
    except KeyError as error:
        raise Invalid((FieldError("head", f"has no {error}"),)) from error
    except _UNREADABLE as error:
        raise Invalid((FieldError("head", f"cannot be read: {error}"),)) from error


def _head(row: HeadRow) -> Head:
    status, level, msg, updated, proven, attempts, hold, unknown_since, homes, deployment, image, hooked, digest, record, good = row
    return Head(
        revision=records.decode(record),
        health=Health(level, Status(status), msg),
        updated=parse_timestamp(updated),
        hold=_HOLD.decode(hold) if hold else None,
        proven=proven,
        attempts=frozen(_ATTEMPTS.decode(attempts)),
        unknown_since=_DEADLINE.decode(unknown_since) if unknown_since else None,
        homes=frozenset(homes.split()),
        deployment=_deployment(json.loads(deployment)) if deployment else None,
        good=Good(records.decode(good), image or "", digest or "") if good else None,
        hooked=MappingProxyType(json.loads(hooked)) if hooked else _NOTHING_HOOKED,
    )


def _deployment_text(deployment: Deployment) -> str:
    """The JSON text of a deployment; ``v_deployments`` reads it too. Put together by hand: it is written with every head."""
    return (
        f'{{"number":{_number(deployment)},"revision":{deployment.revision},"version":{quoted(deployment.version)},'
        f'"kind":"{deployment.kind}","stage":"{deployment.stage.value}","phases":{_phases_text(deployment.stages)},'
        f'"reason":{quoted(deployment.reason)},"spent":{deployment.spent!r},'
        f'"unwell":{"null" if deployment.unwell is None else repr(deployment.unwell)},'
        f'"ready":{deployment.ready},"image":{quoted(deployment.image)},"digest":{quoted(deployment.digest)},'
        f'"pre_started":{"true" if deployment.pre_started else "false"}}}'
    )


def _deployment(data: dict[str, Any]) -> Deployment:
    return Deployment(
        revision=data["revision"],
        version=data["version"],
        kind=data["kind"],
        stages=tuple((Stage(phase["phase"]), parse_timestamp(phase["at"])) for phase in data["phases"]),
        reason=data["reason"],
        spent=data["spent"],
        unwell=data["unwell"],
        ready=data["ready"],
        image=data["image"],
        pre_started=data.get("pre_started", False),  # an earlier version had no hooks
        digest=data.get("digest", ""),
    )


def _phases_text(stages: Sequence[tuple[Stage, datetime]]) -> str:
    """The phases with the seconds each took; of the last one nobody knows yet, or it is the end."""
    parts = []
    for index, (stage, at) in enumerate(stages, 1):
        seconds = _seconds(at, stages[index][1]) if index < len(stages) else "null"
        parts.append(f'{{"phase":"{stage.value}","at":"{timestamp(at)}","seconds":{seconds}}}')
    return f"[{','.join(parts)}]"


def _seconds(start: datetime, end: datetime) -> float:
    return max(0.0, round((end - start).total_seconds(), 3))  # the wall clock may have been set meanwhile


def _number(deployment: Deployment) -> int:
    """Counts up per app; the odd numbers are for automatic rollbacks."""
    return deployment.revision * 2


def deployment_rows(app: str, ended: Deployment, good: Good | None) -> Rows:
    """For ``deployments``: one that has ended, and the automatic rollback in it, where there was one, to ``good``."""
    rows: list[tuple[str, Row]] = [("deployments", _deployment_row(app, ended, ended.kind, _number(ended), ended.revision, ended.version))]
    back = [index for index, (stage, _) in enumerate(ended.stages) if stage is Stage.ROLLING_BACK]
    if back and good is not None and ended.stage in FALLEN_BACK:
        last, at = ended.stages[-1]
        outcome = Stage.SUCCEEDED if last is Stage.ROLLED_BACK else Stage.FAILED
        why = f"revision {ended.revision} ({ended.version}) failed: {ended.reason}"
        part = replace(ended, stages=(*ended.stages[back[-1] : -1], (outcome, at)), reason=why, image=good.image, digest=good.digest)
        rows.append(
            ("deployments", _deployment_row(app, part, "auto-rollback", _number(ended) + 1, good.revision.revision, good.revision.version))
        )
    return rows


def _deployment_row(app: str, ended: Deployment, kind: str, number: int, revision: int, version: str) -> Row:  # noqa: PLR0913, PLR0917  a row's columns
    finished_at = ended.stages[-1][1]
    return (
        app,
        number,
        revision,
        version,
        kind,
        timestamp(ended.started_at),
        timestamp(finished_at),
        _seconds(ended.started_at, finished_at),
        ended.stage.value,
        ended.reason[:_LONGEST_MESSAGE],
        _phases_text(ended.stages),
        ended.image or None,
        ended.digest or None,
    )


def frozen(attempts: Mapping[int, Attempts]) -> Mapping[int, Attempts]:
    """A copy that nobody can change."""
    return MappingProxyType(dict(attempts))


def event_row(event: Event, now: datetime) -> Row:
    """For ``events``."""
    return (timestamp(now), event.app, event.revision, event.kind, event.message[:_LONGEST_MESSAGE])


def image_row(image: PulledImage) -> Row:
    """For ``images``."""
    removed_at = timestamp(image.removed_at) if image.removed_at else None
    return (image.id, " ".join(image.names), timestamp(image.pulled_at), image.idle, removed_at)


def drained_row(drained: Drained | None) -> Row:
    """For ``node``."""
    return ("drained", _text(drained))


def drained(value: str) -> Drained | None:
    """The inverse of ``drained_row``, from its value; raises Invalid."""
    try:
        return _DRAINED.decode(value)
    except _UNREADABLE as error:
        raise Invalid((FieldError("drained", f"cannot be read: {error}"),)) from error


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


def run_row(name: InstanceName, run: ScriptRun) -> Row:
    """For ``runs``."""
    return (
        name.app,
        name.revision,
        run.run,
        timestamp(run.scheduled_at) if run.scheduled_at else None,
        timestamp(run.started_at) if run.started_at else None,
        timestamp(run.finished_at) if run.finished_at else None,
        run.code,
        run.outcome,
        run.reason[:_LONGEST_MESSAGE],
        run.output_tail[-_LONGEST_OUTPUT:],
    )
