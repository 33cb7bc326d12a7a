"""What the probes of a run mean for how its end is accounted."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from boreas_agent.backoff import Moment
from boreas_agent.ledger import Account, enter
from boreas_agent.model import Attempts, Exit, Observed, Phase, Probed, Revision
from tests.unit.test_planner import NOW, T0, head, revision, seen, tried

V1 = revision(1, "v1", health={"liveness": {"tcp": {"port": 80}}}, restart={"reset_after_seconds": 60})
REASON = "liveness probe failed 3 times: HTTP 500 from :80/"
WELL = Probed("1.7", "", started=True, ready=True, well_since=500.0)
MOMENT = Moment(NOW, "b", 0.0)


def running(of: Revision = V1, **more: Any) -> Observed:
    return seen(of, **{"started": 400.0, "life": "7", **more})


def over(code: int | None = 0, seconds: float = 600.0, of: Revision = V1, **more: Any) -> Observed:
    """The end of the run that ``running`` shows."""
    return running(of, phase=Phase.EXITED, exits=(Exit("7", None, T0, code, seconds=seconds, **more),))


def account(observed: Observed, *attempts: Attempts, probed: Probed | None = None, of: Revision = V1) -> Account:
    return enter(head(of, *attempts), [observed], MOMENT, T0, {0: probed} if probed else {})


def kinds(of: Account) -> list[str]:
    return [event.kind for event in of.events]


def test_what_the_probes_find_is_remembered_with_the_attempts() -> None:
    assert account(running(), probed=WELL).attempts[0].probed == WELL
    assert account(running(), tried(V1, started=True, probed=WELL)).attempts[0].probed is None, "there are no probes any more"


def test_a_paused_instance_keeps_what_was_found() -> None:
    assert account(running(phase=Phase.PAUSED), tried(V1, started=True, probed=WELL)).attempts[0].probed == WELL


def test_the_end_of_a_run_that_was_given_up_is_a_failure_with_the_probe_as_its_cause() -> None:
    doomed = replace(WELL, doomed=REASON, well_seconds=200.0)
    after = account(over(), tried(V1, started=True, probed=doomed))
    ((_, ended),) = after.exits
    assert (ended.code, ended.ok, ended.reason, str(ended), ended.lasted) == (0, False, f"stopped: {REASON}", REASON, 200.0)
    assert after.events[0].message == f"web.1.0 exited with code 0 after 600 s ({REASON})"
    assert (after.attempts[0].failures, after.attempts[0].last_exit, after.attempts[0].probed) == (1, ended, None)


def test_the_end_of_another_run_is_none_of_it() -> None:
    doomed = replace(WELL, run="1.6", doomed=REASON)
    ((_, ended),) = account(over(), tried(V1, started=True, probed=doomed)).exits
    assert (ended.reason, ended.ok) == ("", True)


def test_a_program_that_no_probe_ever_found_well_did_not_run_stably_however_long_it_ran() -> None:
    never = replace(WELL, ready=False, well_since=None)
    before = tried(V1, started=True, failures=3, exits=3, probed=never)
    assert account(over(1), before).attempts[0].failures == 4
    assert account(running(), before, probed=never).attempts[0].failures == 3
    for long in (tried(V1, started=True, failures=3, exits=3, probed=WELL), tried(V1, started=True, failures=3, exits=3)):
        assert account(over(1), long).attempts[0].failures == 1
    assert account(running(), before, probed=WELL).attempts[0].failures == 0
    assert account(running(), before, probed=replace(WELL, well_since=NOW - 1)).attempts[0].failures == 3


def test_turns_are_events_and_what_stays_the_same_is_none() -> None:
    not_yet = replace(WELL, ready=False, well_since=None, why="waiting")
    lost = replace(not_yet, lost=True, why="HTTP 503")
    doomed = replace(WELL, doomed=REASON)
    assert kinds(account(running(), probed=not_yet)) == []
    assert kinds(account(running(), tried(V1, started=True, probed=not_yet), probed=WELL)) == ["Ready"]
    assert kinds(account(running(), tried(V1, started=True, probed=WELL), probed=WELL)) == []
    assert kinds(account(running(), tried(V1, started=True, probed=WELL), probed=replace(WELL, blemish="x"))) == []
    unready = account(running(), tried(V1, started=True, probed=WELL), probed=lost)
    assert [event.message for event in unready.events] == ["web.1.0 is not ready: HTTP 503"]
    unhealthy = account(running(), tried(V1, started=True, probed=WELL), probed=doomed)
    assert [event.message for event in unhealthy.events] == [f"web.1.0 is unhealthy: {REASON}"]
    assert kinds(account(running(), tried(V1, started=True, probed=doomed), probed=doomed)) == []
