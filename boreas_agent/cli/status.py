"""``boreas-agent status``: once, or until Ctrl-C."""

from __future__ import annotations

import json
import time
from typing import Any

from boreas_agent.cli.client import Agent, Unreachable
from boreas_agent.cli.render import clean, is_terminal, node_lines, print_line, print_table, status_table

WATCH_SECONDS = 1.0


def show(agent: Agent, app: str | None, as_json: bool) -> int:
    """Print the status once."""
    answer = _ask(agent, app)
    if as_json:
        print(json.dumps(answer, indent=2, ensure_ascii=False))
        return 0
    print_table(status_table(_apps(answer)))
    if app is None:
        print_line(_summary(answer))
    return 0


def watch_forever(agent: Agent, app: str | None, as_json: bool) -> int:
    """Show every change; ends with Ctrl-C. The agent may come and go meanwhile."""
    if is_terminal() and not as_json:
        return _watch_live(agent, app)
    before: dict[str, str] = {}
    while True:
        try:
            now = {str(state["app"]): state for state in _apps(_ask(agent, app))}
            lines = {name: json.dumps(state, ensure_ascii=False) if as_json else _line(state) for name, state in now.items()}
            lines |= {name: f"{name}: removed" for name in before if name and name not in now and not as_json}
        except Unreachable as error:
            lines = before | ({} if as_json else {"": str(error)})
        for name, line in lines.items():
            if before.get(name) != line:
                print(line, flush=True)
        before = lines
        time.sleep(WATCH_SECONDS)


def _watch_live(agent: Agent, app: str | None) -> int:
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    with Live(auto_refresh=False) as live:
        while True:
            try:
                answer = _ask(agent, app)
                live.update(Group(status_table(_apps(answer)), Text(_summary(answer) if app is None else "")), refresh=True)
            except Unreachable as error:
                live.update(Text(str(error)), refresh=True)
            time.sleep(WATCH_SECONDS)


def _ask(agent: Agent, app: str | None) -> dict[str, Any]:
    return agent.call("GET", "/v1/status") if app is None else agent.status(app)


def _apps(answer: dict[str, Any]) -> list[dict[str, Any]]:
    return list(answer["apps"]) if "apps" in answer else [answer]


def _summary(answer: dict[str, Any]) -> str:
    drained = answer.get("drained")
    apps = str((answer.get("healthy") or {}).get("msg", "")) if answer["apps"] else "no apps; submit one with: boreas-agent apply -f FILE"
    apps = f"{apps}; {clean(_drained(drained))}" if drained else apps
    return "\n".join([apps, *(clean(line) for line in node_lines(answer))])


def _drained(drained: dict[str, Any]) -> str:
    because = f": {drained['reason']}" if drained.get("reason") else ""
    return f"the node is drained by {drained.get('by')} since {drained.get('since')}{because} (boreas-agent undrain ends it)"


def _line(state: dict[str, Any]) -> str:
    healthy = state.get("healthy") or {}
    words = (f"{state['app']} {state.get('version')}:", state.get("status"), f"({healthy.get('level')})", healthy.get("msg", ""))
    return " ".join(str(word) for word in words).rstrip()
