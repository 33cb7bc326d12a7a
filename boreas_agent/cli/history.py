"""``boreas-agent history``: the deployments of an app, or its revisions."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from boreas_agent.cli.client import Agent
from boreas_agent.cli.render import print_table, table

_DEPLOYMENTS = ("STARTED", "REV", "VERSION", "KIND", "OUTCOME", "SECONDS", "WHY")
_REVISIONS = ("SUBMITTED", "REV", "VERSION", "KIND", "TYPE", "BY")


def show_history(agent: Agent, app: str, what: str, limit: int, as_json: bool) -> int:
    """``what``: deployments or revisions; the newest first."""
    answer = agent.call("GET", f"/v1/apps/{quote(app, safe='')}/{what}?limit={limit}")
    rows = answer[what]
    if as_json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
    elif what == "revisions":
        print_table(table(_REVISIONS, [_revision(row) for row in rows]))
    else:
        print_table(table(_DEPLOYMENTS, [_deployment(row) for row in rows]))
    return 0


def _deployment(row: dict[str, Any]) -> tuple[object, ...]:
    outcome = row["outcome"] or f"{row['phase']} …"
    return row["started_at"], row["revision"], row["version"], row["kind"], outcome, row["seconds"], row["reason"]


def _revision(row: dict[str, Any]) -> tuple[object, ...]:
    return row["submitted_at"], row["revision"], row["version"], row["kind"], row["type"], row["submitted_by"]
