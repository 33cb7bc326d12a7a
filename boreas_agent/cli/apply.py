"""``boreas-agent apply``: submit every document, then follow what was accepted."""

from __future__ import annotations

from collections.abc import Sequence

from boreas_agent.cli.client import Agent, Refused
from boreas_agent.cli.documents import read
from boreas_agent.cli.progress import Judge, follow, healthy
from boreas_agent.cli.render import print_line


def apply_files(agent: Agent, names: Sequence[str], timeout: float | None) -> int:
    """0 where every app was accepted and (unless ``timeout`` is None) became healthy within ``timeout`` seconds."""
    judges: dict[str, Judge] = {}
    refused = 0
    for document in read(names):
        try:
            receipt = agent.call("POST", "/v1/apply", document.body)
        except Refused as error:
            refused += 1
            print_line(f"{document.app}: refused ({document.origin}): {error}")
            continue
        print_line(f"{receipt['app']}: {receipt.get('message') or 'recorded'}")
        judges[str(receipt["app"])] = healthy(int(receipt["revision"]))
    good = timeout is None or follow(agent, judges, timeout)
    return 0 if good and not refused else 1
