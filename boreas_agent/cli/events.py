"""``boreas-agent events``: what happened, once, or as it happens until Ctrl-C."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

from boreas_agent.cli.client import Agent, Unreachable
from boreas_agent.cli.render import print_line, print_table, table

AGAIN_SECONDS = 1.0


def show_events(agent: Agent, app: str | None, limit: int, as_json: bool) -> int:
    """The newest, oldest first."""
    rows = agent.call("GET", _path(app, limit=limit))["events"]
    if as_json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
    else:
        print_table(table(("AT", "APP", "REV", "KIND", "MESSAGE"), [_cells(row) for row in rows]))
    return 0


def follow_events(agent: Agent, app: str | None, limit: int, as_json: bool) -> int:
    """The newest and everything after them. The agent may come and go meanwhile; nothing is missed or shown twice."""
    last, away = "", False
    while True:
        try:
            for seen, row in _stream(agent, _path(app, limit=limit, follow=1), last):
                last, away = seen, False
                print_line(json.dumps(row, ensure_ascii=False) if as_json else "  ".join(str(cell or "-") for cell in _cells(row)))
        except Unreachable as error:
            if not away:
                print(f"boreas-agent: {error} (still trying)", file=sys.stderr, flush=True)
            away = True
        time.sleep(AGAIN_SECONDS)


def _path(app: str | None, **query: int) -> str:
    return "/v1/events?" + urlencode(({} if app is None else {"app": app}) | query)


def _cells(row: dict[str, Any]) -> tuple[object, ...]:
    return row["at"], row["app"], row["revision"], row["kind"], row["message"]


def _stream(agent: Agent, path: str, last: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Ids and events, from after the id ``last`` on where there is one."""
    for line in agent.lines(path, {"Last-Event-ID": last} if last else {}):
        name, _, value = line.decode(errors="replace").partition(": ")
        if name == "id":
            last = value
        elif name == "data":  # the agent writes an event as one line
            yield last, json.loads(value)
