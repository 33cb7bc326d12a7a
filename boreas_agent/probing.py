"""Pure: from the results of probes to a verdict on a run, with Kubernetes' semantics.

A startup probe holds the others back until it has passed once. Readiness begins with no and changes after
``success_threshold`` or ``failure_threshold`` equal results in a row; liveness begins with yes. A result that nobody could
get (the engine did not answer) is no result. The verdict, :class:`~boreas_agent.model.Probed`, is worded when it changes, and
so stays equal while results repeat themselves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from msgspec import Struct, field
from msgspec.structs import replace

from boreas_agent import hooks
from boreas_agent.model import Attempts, Head, Observed, Phase, Probed
from boreas_agent.planner import sort_out
from boreas_agent.spec import Pkg
from boreas_agent.spec.probes import Probe, ProbeKind

BLEMISH_SECONDS = 30.0
"""A failure counts as 'lately' for so long; it also bounds how often a probe that fails every other time changes the verdict."""
_LONGEST_WORDS = 300
_FIRST_PAUSE = 1.0


class Defaults(Struct, frozen=True):
    """What numbers a probe gets that gives none of its own (``agent.health``)."""

    interval: float = 30.0
    timeout: float = 10.0
    failure_threshold: int = 3


class Timing(Struct, frozen=True):
    """The numbers of one probe, in seconds and results. ``eager``: asked sooner than the interval until it first passes."""

    delay: float
    interval: float
    timeout: float
    failures: int
    successes: int
    eager: bool

    def pause(self, asked: int) -> float:
        """Seconds from the ``asked``-th question to the next while it has never passed.

        The agent's own interval is chosen for apps that run; one that is just coming up need not wait for it.
        """
        return min(self.interval, _FIRST_PAUSE * 2.0 ** min(asked - 1, 30)) if self.eager else self.interval


def timing(kind: ProbeKind, probe: Probe, defaults: Defaults) -> Timing:
    """The probe's own numbers, else the defaults."""
    return Timing(
        delay=probe.initial_delay_seconds,
        interval=probe.interval_seconds or defaults.interval,
        timeout=probe.timeout_seconds or defaults.timeout,
        failures=probe.failure_threshold or defaults.failure_threshold,
        successes=probe.success_threshold,
        eager=probe.interval_seconds is None and kind != "liveness",
    )


class Result(Struct, frozen=True):
    """One answer. ``ok`` None: nobody can know at the moment. ``counts`` False: a failure was asked for too early to count."""

    ok: bool | None
    message: str = ""
    counts: bool = True


class Row(Struct, frozen=True):
    """Equal results of one probe in a row. ``failing_since`` and ``failed_at`` are boot seconds; ``passes`` counts all in this run."""

    passes: int = 0
    successes: int = 0
    failures: int = 0
    failing_since: float = 0.0
    failed_at: float = float("-inf")

    def after(self, result: Result, now: float) -> Row:
        """With one more result."""
        if result.ok:
            return Row(self.passes + 1, self.successes + 1, failed_at=self.failed_at)
        return Row(self.passes, 0, self.failures + result.counts, self.failing_since if self.failures else now, now)


class Course(Struct, frozen=True):
    """How the probes of one run have gone so far. ``gated``: there is a readiness probe, or a health check of the image."""

    probed: Probed
    gated: bool
    rows: Mapping[ProbeKind, Row] = field(default_factory=lambda: MappingProxyType({}))

    def due(self, kind: ProbeKind) -> bool:
        """Whether this probe is asked at this stage."""
        return self.probed.started != (kind == "startup")


def targets(head: Head, observed: Sequence[Observed]) -> dict[int, Observed]:
    """By replica, the running instances that have something to find out about; not before they are complete."""
    if not observed or head.running.removed:
        return {}
    current, _ = sort_out(head, observed)
    probes = bool(head.running.pkg.health.probes)
    running = {replica: seen for replica, seen in current.items() if seen.phase is Phase.RUNNING and (probes or seen.checked)}
    return {replica: seen for replica, seen in running.items() if hooks.post_start(head, seen) is None}


def digest(pkg: Pkg) -> str:
    """Identifies the probes: verdicts of other probes say nothing about these."""
    return hashlib.sha256(repr(sorted(pkg.canonical_form.get("health", {}).items())).encode()).hexdigest()[:16]


def begin(seen: Observed, head: Head, replica: int, now: float) -> Course:
    """What is known before anything was asked: what an earlier agent found of the same run stands, so that healthy stays healthy.

    How long it has been ready counts from now on, unless the revision is proven: nobody looked meanwhile.
    """
    revision, by = head.running, digest(head.running.pkg)
    gated = revision.pkg.health.readiness is not None or bool(seen.checked)
    known = (head.attempts.get(replica) or Attempts(replica, revision.instance_hash)).findings(seen)
    if known is not None and known.by == by:
        passed: dict[ProbeKind, Row] = {"readiness": Row(1), "liveness": Row(1)} if known.ready else {}
        proven = head.proven == revision.instance_hash
        return Course(known if proven or known.well_since is None else replace(known, well_since=now), gated, MappingProxyType(passed))
    if revision.pkg.health.startup is not None:
        return Course(Probed(seen.run_key, by, why="waiting for its startup probe"), gated)
    return Course(_started(Probed(seen.run_key, by), gated, now), gated)


def advance(course: Course, kind: ProbeKind, result: Result, numbers: Timing, now: float) -> Course:
    """``course`` after one more result."""
    if result.ok is None or not course.due(kind):
        return course
    row = course.rows.get(kind, Row()).after(result, now)
    if not result.ok:
        probed = _failed(course.probed, kind, row, result.message, numbers)
    elif kind == "startup":
        probed = _started(replace(course.probed, doomed=""), course.gated, now)
    else:
        probed = _passed(course.probed, kind, row, numbers, now)
    return replace(course, probed=probed, rows=MappingProxyType({**course.rows, kind: row}))


def _started(probed: Probed, gated: bool, now: float) -> Probed:
    if gated:
        return replace(probed, started=True, why="waiting for its readiness probe")
    return _ready(replace(probed, started=True), now)


def _ready(probed: Probed, now: float) -> Probed:
    return replace(probed, ready=True, lost=False, why="", well_since=now if probed.well_since is None else probed.well_since)


def _passed(probed: Probed, kind: ProbeKind, row: Row, numbers: Timing, now: float) -> Probed:
    if kind == "liveness" and probed.doomed:
        probed = replace(probed, doomed="")
    elif kind == "readiness" and not probed.ready and row.successes >= numbers.successes:
        probed = _ready(probed, now)
    if probed.blemish.startswith(kind) and (row.passes == 1 or now - row.failed_at >= BLEMISH_SECONDS):  # what failed before was its start
        return replace(probed, blemish="")
    return probed


def _failed(probed: Probed, kind: ProbeKind, row: Row, message: str, numbers: Timing) -> Probed:
    final = row.failures >= numbers.failures
    times = f" {numbers.failures} times" if final and numbers.failures > 1 else ""
    words = f"{kind} probe failed{times}: {message}"[:_LONGEST_WORDS]
    if kind != "readiness" and final:
        return probed if probed.doomed else replace(probed, doomed=words, well_seconds=_well_seconds(probed, row))
    if kind == "liveness" or (probed.ready and not final):
        return probed if probed.blemish else replace(probed, blemish=words)
    if probed.ready:
        return replace(probed, ready=False, lost=True, why=words, blemish="", well_since=None)
    return replace(probed, why=words) if _worth_saying(row.failures, numbers) or not probed.why.startswith(kind) else probed


def _well_seconds(probed: Probed, row: Row) -> float:
    """How long it was well before it began to fail; one that never passed was never well."""
    return max(0.0, row.failing_since - probed.well_since) if row.passes and probed.well_since is not None else 0.0


def _worth_saying(failures: int, numbers: Timing) -> bool:
    """Ever more seldom: a message that is another one each time must not fill the history."""
    return failures == numbers.failures or (failures > 0 and failures & (failures - 1) == 0)


def told_by_engine(course: Course, seen: Observed, now: float) -> Course:
    """The image's own health check stands for a readiness probe that is not given."""
    probed = course.probed
    if not probed.started or probed.doomed:
        return course
    match seen.checked:
        case "healthy" if not probed.ready:
            probed = _ready(probed, now)
        case "unhealthy" if probed.ready or not probed.why.endswith("fails"):
            probed = replace(probed, ready=False, lost=probed.ready, why="the image's health check fails", well_since=None)
        case "starting":
            probed = replace(probed, ready=False, why="waiting for the image's health check", well_since=None)
    return replace(course, probed=probed)


class Probes(Protocol):
    """Whoever asks: told what there is to ask about, tells what is known of it by now."""

    def look(self, head: Head, observed: Sequence[Observed]) -> Mapping[int, Probed]:
        """By replica, what is known of the running instances; from now on these are asked, and no others of the app."""

    def forget(self, app: str) -> None:
        """Nothing is left of the app."""
