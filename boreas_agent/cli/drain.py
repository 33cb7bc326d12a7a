"""``drain`` and ``undrain``: one request to the node, then following what it comes to, app by app."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from boreas_agent.cli.client import Agent
from boreas_agent.cli.progress import Verdict, follow, healthy
from boreas_agent.cli.render import print_line


def drain_node(agent: Agent, reason: str, timeout: float | None) -> int:
    """Unless ``timeout`` is None, 1 where something still runs after that many seconds."""
    print_line(agent.call("POST", "/v1/drain", {"reason": reason})["message"])
    if timeout is None:
        return 0
    return 0 if follow(agent, {str(app["app"]): at_rest for app in agent.call("GET", "/v1/status")["apps"]}, timeout) else 1


def undrain_node(agent: Agent, timeout: float | None) -> int:
    """Unless ``timeout`` is None, 1 where an app is not healthy after that many seconds."""
    answer = agent.call("POST", "/v1/undrain", {})
    print_line(answer["message"])
    if timeout is None or not answer["changed"]:
        return 0
    apps = [app for app in agent.call("GET", "/v1/status")["apps"] if app["status"] != "removing" and not app.get("held")]
    return 0 if follow(agent, {str(app["app"]): healthy(int(app["revision"])) for app in apps}, timeout) else 1


def at_rest(seen: Mapping[str, Any] | None) -> Verdict:
    """The judge of a drain: nothing of the app runs any more. An app that is held is left alone, and so never gets there."""
    if seen is None:
        return Verdict(True, "removed")
    line = f"{seen['status']} ({seen['healthy']['level']}) {seen['healthy'].get('msg', '')}".rstrip()
    ended = seen["status"] == "stopped" or (seen.get("type") == "script" and seen["status"] in {"completed", "failed"})
    if ended:
        return Verdict(True, line)
    if seen.get("held"):
        return Verdict(False, f"it is held and left as it is; release it, or stop it by hand: {line}")
    return Verdict(None, line)
