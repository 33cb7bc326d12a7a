"""What was tried, and what is remembered of it."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from msgspec import Struct

from boreas_agent.model.observed import Exit, Observed, Probed


class Deadline(Struct, frozen=True):
    """A moment on the boot-time clock that survives restarts of the agent.

    On another boot the whole ``delay`` starts over (see ``rebased``).
    """

    at: float
    delay: float
    boot_id: str

    def rebased(self, boot_id: str, now: float) -> Deadline:
        """The same deadline as seen on the boot ``boot_id`` at boot second ``now``."""
        return self if boot_id == self.boot_id else Deadline(now + self.delay, self.delay, boot_id)


class Checked(Struct, frozen=True):
    """What the check of a script said, since its last run. ``again``: until then it counts as what it would say.

    ``drift``: it had passed before, without a run in between.
    """

    passed: bool
    words: str
    again: Deadline
    drift: bool = False


class Turn(Struct, frozen=True):
    """Where a script with a schedule stands; the ``Attempts`` it belongs to count for this turn alone.

    ``upto`` (wall clock, like all scheduled times): nothing scheduled until then is ever due again. ``wanted``: there is something to run,
    or there was; ``at`` is when that was scheduled, None where a person asked for it. ``queued`` waits for its end. Of the turn before
    it: ``succeeded``, or how it ``failed``; neither where there was none.
    """

    upto: datetime
    wanted: bool = False
    at: datetime | None = None
    queued: datetime | None = None
    succeeded: bool = False
    failed: str = ""


class ScriptRun(Struct, frozen=True):
    """One run of a script, or a scheduled one that there will not be. ``run`` identifies it within its revision.

    ``outcome`` and ``finished_at`` are None while it goes on.
    """

    run: str
    scheduled_at: datetime | None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    code: int | None = None
    outcome: Literal["succeeded", "failed", "timed-out", "unknown", "skipped", "missed"] | None = None
    reason: str = ""
    output_tail: str = ""

    @classmethod
    def ended(cls, ended: Exit, scheduled_at: datetime | None = None) -> ScriptRun:
        """A run of which the end is known, or known to be unknowable."""
        outcome: Literal["succeeded", "failed", "timed-out", "unknown"]
        outcome = "timed-out" if ended.timed_out else "unknown" if ended.lost else "succeeded" if ended.ok else "failed"
        reason = ended.reason or ("" if ended.ok else str(ended))
        return cls(ended.run, scheduled_at, ended.started_at, ended.exited_at, ended.code, outcome, reason, ended.output_tail)


class Attempts(Struct, frozen=True):
    """What is remembered of one replica's failures, for the instance hash it was counted for.

    ``failures`` counts consecutive failed runs or starts since the last stable run, ``exits`` those of
    them that were runs; ``not_before`` is when the next start is allowed; ``restarts`` counts all
    starts after the first.
    """

    replica: int
    hash: str
    failures: int = 0
    exits: int = 0
    free: bool = False  # the first restart of the row was immediate, so the delays began one later
    restarts: int = 0
    started: bool = False  # an instance was started and its end has not been seen yet
    not_before: Deadline | None = None
    restarted: Deadline | None = None  # until then the last restart counts as 'not long ago'
    last_failure: str = ""
    last_exit: Exit | None = None
    recorded: tuple[str, ...] = ()  # runs whose exits are already counted (the newest few)
    probed: Probed | None = None  # what the probes of the current run have found; None: it has none
    checked: Checked | None = None  # of a script that is not running: what its check said last; None: it has to be asked
    overdue: str = ""  # the run (``Observed.run_key``) that has lasted longer than it may, and is to be stopped
    turn: Turn | None = None  # of a script with a schedule; None: nothing was due yet

    def findings(self, seen: Observed) -> Probed | None:
        """What the probes have found of the run that is ``seen``; None where it has none."""
        return self.probed if self.probed is not None and self.probed.run == seen.run_key else None
