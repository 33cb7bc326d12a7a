"""``boreas-agent plan``: what apply would change, document by document; changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from boreas_agent.cli.client import Agent, Refused
from boreas_agent.cli.documents import read
from boreas_agent.cli.render import print_line, print_table, table


def plan_files(agent: Agent, names: Sequence[str]) -> int:
    """0 where every document would be accepted."""
    refused = 0
    for document in read(names):
        try:
            answer = agent.call("POST", "/v1/plan", document.body)
        except Refused as error:
            refused += 1
            print_line(f"{document.app}: would be refused ({document.origin}): {error}")
            continue
        print_line(f"{answer['app']}: {answer['message']}")
        if answer["actions"]:
            print_table(table(("", "ACTION", "INSTANCE", "CAUSE"), [_row(number, one) for number, one in enumerate(answer["actions"], 1)]))
    return 1 if refused else 0


def _row(number: int, action: dict[str, Any]) -> tuple[object, ...]:
    return number, action["action"], action["instance"], action["cause"]
