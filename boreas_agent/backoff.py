"""Pure: what a run that ended, or a start that failed, means for the next start.

The first restart after healthy running is immediate; from then on delays grow by ``factor`` up to
``max_delay_seconds``, each jittered by ±10%, until a run lasts ``reset_after_seconds``.
"""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from boreas_agent.model import Attempts, Deadline, Exit
from boreas_agent.spec import Pkg, Restart, max_attempts, restart_policy

REMEMBERED_RUNS = 8
"""How many recorded runs are remembered for each replica; a driver keeps fewer exits than that."""


class Moment(Struct, frozen=True):
    """When a decision is made: boot second, boot id, and a draw from [-1, 1] for the jitter."""

    boottime: float
    boot_id: str
    chance: float

    def after(self, seconds: float) -> Deadline:
        """The deadline ``seconds`` from here."""
        return Deadline(self.boottime + seconds, seconds, self.boot_id)


def delay_seconds(policy: Restart, failures: int, chance: float) -> float:
    """How long to wait after the ``failures``-th consecutive failure (1 is the first): seconds, jittered."""
    exponent = min(failures - 1, 64)  # beyond any ceiling; keeps the float finite
    return float(min(policy.max_delay_seconds, policy.initial_delay_seconds * policy.factor**exponent)) * (1 + 0.1 * chance)


def after_exit(attempts: Attempts, key: str, ended: Exit, pkg: Pkg, moment: Moment) -> Attempts:
    """``attempts`` with one more ended run, recorded under ``key``.

    A run as long as ``reset_after_seconds`` ends a row of failures. An exit where none was counted before, after
    ``min_healthy_seconds`` or an unknown time of running, leads to a restart at once. Of a run that has probes only the
    time counts that they found it well.
    """
    policy = pkg.restart
    lasted = ended.lasted
    stable = pkg.type != "script" and lasted is not None and lasted >= policy.reset_after_seconds  # a script is to end, not to run long
    row = 0 if stable else attempts.failures
    was_healthy = lasted is None or lasted >= min(pkg.rollout.min_healthy_seconds, policy.reset_after_seconds)
    free = was_healthy if row == 0 else attempts.free
    wait = None if row == 0 and free else moment.after(delay_seconds(policy, row + 1 - free, moment.chance))
    return replace(
        attempts,
        failures=row + 1,
        exits=1 if row == 0 else attempts.exits + 1,
        free=free,
        started=False,
        not_before=wait,
        last_failure="",
        last_exit=ended,
        recorded=(*attempts.recorded, key)[-REMEMBERED_RUNS:],
        probed=None,
        checked=None,
        overdue="",
    )


def after_failure(attempts: Attempts, why: str, policy: Restart, moment: Moment, *, hopeless: bool = False) -> Attempts:
    """``attempts`` after preparing or starting failed; ``hopeless`` waits the longest delay at once."""
    failures = attempts.failures + 1
    seconds = policy.max_delay_seconds * (1 + 0.1 * moment.chance) if hopeless else delay_seconds(policy, failures, moment.chance)
    return replace(attempts, failures=failures, not_before=moment.after(seconds), last_failure=why, checked=None)


def after_start(attempts: Attempts, policy: Restart, moment: Moment) -> Attempts:
    """``attempts`` after a start that worked; one that followed an exit, or repairs what has drifted, counts as a restart."""
    again = attempts.last_exit is not None or (attempts.checked is not None and attempts.checked.drift)
    return replace(
        attempts,
        started=True,
        not_before=None,
        last_failure="",
        restarts=attempts.restarts + again,
        restarted=moment.after(policy.reset_after_seconds) if again else attempts.restarted,
        checked=None,
    )


def after_stable_running(attempts: Attempts) -> Attempts:
    """``attempts`` once the current run has lasted ``reset_after_seconds``: what failed before it is history."""
    return replace(attempts, failures=0, exits=0, free=False)


def finished(attempts: Attempts, pkg: Pkg) -> bool:
    """The replica ended well and is not to run again. Where a script has a check, it is that which says so."""
    if _has_check(pkg):
        return attempts.checked is not None and attempts.checked.passed
    return attempts.last_exit is not None and attempts.last_exit.ok and restart_policy(pkg) != "always"


def given_up(attempts: Attempts, pkg: Pkg) -> bool:
    """The replica failed and is not to be started again by itself.

    A script whose outcome nobody can know is among them: running it a second time could do its work twice. Where it has a check, that
    has the last word, and is asked on.
    """
    ended = attempts.last_exit
    if ended is None or finished(attempts, pkg) or (_has_check(pkg) and attempts.checked is None):
        return False
    if (pkg.type == "script" and ended.lost) or restart_policy(pkg) == "never":
        return True
    limit = max_attempts(pkg)
    return limit is not None and attempts.exits >= limit


def _has_check(pkg: Pkg) -> bool:
    return pkg.type == "script" and pkg.check is not None
