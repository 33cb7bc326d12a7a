"""Following apps until they are as asked for: the judgement, apart from how it is shown."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

from boreas_agent.cli.client import Agent, Refused, Unreachable
from boreas_agent.cli.render import clean, is_terminal, print_line, status_table
from boreas_agent.clock import SystemClock

HEALTHY = 80
POLL_SECONDS = 0.3


class Verdict(NamedTuple):
    """``ok`` None: not decided yet. ``line`` says how it is."""

    ok: bool | None
    line: str


class Judge(Protocol):
    """Decides from a status object (None where the app is unknown) whether what was asked for has happened."""

    def __call__(self, seen: Mapping[str, Any] | None, /) -> Verdict: ...


def healthy(revision: int) -> Judge:
    """The judge of an apply or restart that was recorded as ``revision``."""

    def judge(seen: Mapping[str, Any] | None) -> Verdict:
        if seen is None:
            return Verdict(False, "removed meanwhile")
        status, level = str(seen.get("status")), int(seen["healthy"]["level"])
        line = f"{status} ({level}) {seen['healthy'].get('msg', '')}".rstrip()
        if int(seen.get("revision", 0)) > revision:
            return Verdict(False, f"superseded by revision {seen['revision']}: {line}")
        if level >= HEALTHY or (status == "stopped" and seen.get("replicas") == 0):
            return Verdict(True, line)
        if seen.get("held"):
            return Verdict(False, f"held, so nothing happens until it is released: {line}")
        if seen.get("blocked") and (seen.get("deployment") or {}).get("outcome"):
            return Verdict(False, line)
        coming_back = status == "failed" and (seen.get("deployment") or {}).get("rollback_to") is not None
        return Verdict(False if status in {"failed", "removing"} and not coming_back else None, line)

    return judge


def gone(seen: Mapping[str, Any] | None) -> Verdict:
    """The judge of a removal."""
    if seen is None:
        return Verdict(True, "removed")
    if seen.get("status") != "removing":
        return Verdict(False, f"applied anew meanwhile: {seen.get('status')}")
    return Verdict(None, f"removing {seen['healthy'].get('msg', '')}".rstrip())


def follow(agent: Agent, judges: Mapping[str, Judge], timeout: float) -> bool:
    """Show every app until all are decided or ``timeout`` seconds passed; True where all went well."""
    clock = SystemClock()
    deadline = clock.boottime() + timeout
    verdicts: dict[str, Verdict] = {}
    seen: dict[str, Mapping[str, Any] | None] = {}
    with _display() as show:
        while True:
            for app in [app for app in judges if app not in verdicts or verdicts[app].ok is None]:
                verdicts[app] = _look(agent, app, judges[app], seen)
            show(verdicts, seen)
            waiting = [app for app in judges if verdicts[app].ok is None]
            if not waiting:
                break
            left = deadline - clock.boottime()
            if left <= 0:
                break
            time.sleep(min(POLL_SECONDS, left))
    for app, verdict in verdicts.items():
        outcome = {True: "ok", False: "FAILED", None: f"not there after {timeout:g} s"}[verdict.ok]
        print_line(f"{app}: {outcome}: {verdict.line}")
    return all(verdict.ok for verdict in verdicts.values())


def _look(agent: Agent, app: str, judge: Judge, seen: dict[str, Mapping[str, Any] | None]) -> Verdict:
    try:
        seen[app] = agent.status(app)
    except Unreachable as error:
        return Verdict(None, f"{error} (still trying)")  # an agent that is being upgraded is back in a moment
    except Refused as error:
        if error.status != 404:
            return Verdict(False, str(error))
        seen[app] = None
    return judge(seen[app])


Show = Callable[[Mapping[str, Verdict], Mapping[str, Mapping[str, Any] | None]], None]


@contextmanager
def _display() -> Iterator[Show]:
    if is_terminal():
        from rich.live import Live

        with Live(transient=True, auto_refresh=False) as live:
            yield lambda _, seen: live.update(status_table([state for state in seen.values() if state]), refresh=True)
        return
    shown: dict[str, str] = {}

    def lines(verdicts: Mapping[str, Verdict], _: object) -> None:
        for app, verdict in verdicts.items():
            if verdict.ok is None and shown.get(app) != verdict.line:
                shown[app] = verdict.line
                print_line(clean(f"{app}: {verdict.line}"))

    yield lines
