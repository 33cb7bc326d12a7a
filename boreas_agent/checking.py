"""Pure: when the check of a script is asked, and what its answer means.

It is asked before the script is run, again when that has ended, and from then on every ``check_interval_seconds``. An answer of 0 settles
everything that was before it, also a run of which nobody knows how it ended; another one has the script run, within its attempts.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from boreas_agent.backoff import Moment, given_up
from boreas_agent.model import Attempts, Checked, Executed
from boreas_agent.spec import Pkg, ScriptPkg

CHECK_SECONDS = 60.0
"""A check may take so long, or as long as a run of its script where that is less."""
LONGEST_TAIL = 300


class Next(Struct, frozen=True):
    """What is to be done for a script that does not run: its check asked or itself run, for ``cause``, or nothing until ``wake_at``."""

    ask: bool = False
    cause: str = ""
    wake_at: float | None = None


def following(tried: Attempts, pkg: ScriptPkg, now: float) -> Next:
    """The next thing to do for a script with a check; ``now`` in boot seconds."""
    waits = tried.not_before.at if tried.not_before is not None and tried.not_before.at > now else None
    answer = tried.checked
    if answer is None or answer.again.at <= now:
        if tried.last_failure and waits is not None:
            return Next(wake_at=waits)
        return Next(ask=True, cause=_why_ask(tried))
    if answer.passed or given_up(tried, pkg):
        return Next(wake_at=answer.again.at)
    if waits is not None:
        return Next(wake_at=min(waits, answer.again.at))
    return Next(cause=_why_run(tried, answer))


def seconds(pkg: ScriptPkg) -> float:
    """For how long its check may run."""
    return CHECK_SECONDS if pkg.timeout_seconds is None else min(CHECK_SECONDS, pkg.timeout_seconds)


def answered(tried: Attempts, answer: Executed, pkg: ScriptPkg, moment: Moment) -> tuple[Attempts, Sequence[tuple[str, str]]]:
    """``tried`` after the check has answered, with a status; kind and words of what is worth an event."""
    before, again = tried.checked, moment.after(pkg.check_interval_seconds)
    if answer.code == 0:
        passed = Checked(passed=True, words="check passed", again=again)
        settled = replace(tried, failures=0, exits=0, free=False, not_before=None, last_failure="", last_exit=None, checked=passed)
        return settled, () if before is not None and before.passed else (("CheckPassed", "check passed: all is as it should be"),)
    tail = answer.tail(LONGEST_TAIL)
    words = f"check exited with code {answer.code}" + (f": {tail}" if tail else "")
    drift = before is not None and (before.passed or before.drift)
    new = before is None or before.passed or before.words != words
    failed = Checked(passed=False, words=words, again=again, drift=drift)
    return replace(tried, last_failure="", checked=failed), (("CheckFailed", words),) if new else ()


def last_words(tried: Attempts) -> str:
    """How it stands with a replica that does not run, from the last failure, or the last run and what its check said after it."""
    if tried.last_failure:
        return tried.last_failure
    ran, said = str(tried.last_exit) if tried.last_exit else "", tried.checked
    if said is None:
        return ran or "not started yet"
    if said.passed:
        return said.words
    return f"{ran}, and yet {said.words}" if tried.last_exit and tried.last_exit.ok else f"{ran}; {said.words}" if ran else said.words


def final_words(tried: Attempts, pkg: Pkg) -> str:
    """Why a replica is not tried again."""
    unknown_end = pkg.type == "script" and tried.last_exit is not None and tried.last_exit.lost
    words = last_words(tried).removeprefix("outcome unknown: ")
    return f"outcome unknown: {words}" if unknown_end else words


def _why_ask(tried: Attempts) -> str:
    if tried.last_failure:
        return f"trying again: {tried.last_failure}"
    if tried.checked is not None:
        return "its interval has passed"
    return f"its run ended: {tried.last_exit}" if tried.last_exit is not None else "whether the script need run"


def _why_run(tried: Attempts, answer: Checked) -> str:
    return f"drift: {answer.words}" if answer.drift and tried.last_exit is None else last_words(tried)
