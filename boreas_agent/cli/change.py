"""``restart``, ``rollback``, ``remove``, ``hold``, ``release``: one request each, then following what it causes."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from boreas_agent.cli.client import Agent
from boreas_agent.cli.progress import follow, gone, healthy
from boreas_agent.cli.render import print_line


def change(agent: Agent, app: str, verb: str, body: dict[str, Any]) -> int:
    """``hold`` or ``release``: done when it is recorded."""
    print_line(f"{app}: {agent.change(app, verb, body).get('message', 'done')}")
    return 0


def restart_app(agent: Agent, app: str, timeout: float | None) -> int:
    """Unless ``timeout`` is None, 1 where the app is not healthy again after that many seconds."""
    receipt = agent.change(app, "restart", {})
    print_line(f"{app}: {receipt.get('message', 'restart recorded')}")
    return 0 if timeout is None or follow(agent, {app: healthy(int(receipt["revision"]))}, timeout) else 1


def roll_back(agent: Agent, app: str, to: int | None, timeout: float | None) -> int:
    """Unless ``timeout`` is None, 1 where the app is not healthy after that many seconds."""
    receipt = agent.change(app, "rollback", {} if to is None else {"to": to})
    print_line(f"{app}: version {receipt['version']}: {receipt.get('message', 'rollback recorded')}")
    return 0 if timeout is None or follow(agent, {app: healthy(int(receipt["revision"]))}, timeout) else 1


def remove_app(agent: Agent, app: str, timeout: float | None) -> int:
    """Unless ``timeout`` is None, 1 where something of the app is still there after that many seconds."""
    receipt = agent.call("DELETE", f"/v1/apps/{quote(app, safe='')}")
    print_line(f"{app}: {receipt.get('message', 'removal recorded')}")
    return 0 if timeout is None or follow(agent, {app: gone}, timeout) else 1
