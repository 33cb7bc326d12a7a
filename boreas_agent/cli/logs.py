"""``boreas-agent logs``: what an app writes, also across restarts of the agent."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlencode

from boreas_agent.cli.client import SECONDS, Agent, Refused, Unreachable

AGAIN_SECONDS = 1.0
_UNAVAILABLE = 503


@dataclass(slots=True)
class _Printed:
    """The time of the last line that was printed, and how many lines of that time were."""

    at: str = ""
    lines: int = 0

    def new(self, lines: Iterator[bytes]) -> Iterator[tuple[str, bytes]]:
        """Time and text of those of ``lines``, which begin at ``at``, that were not printed yet."""
        skip = self.lines
        for line in lines:
            time_, _, text = line.partition(b" ")
            at = time_.decode("ascii", "replace")
            if at == self.at and skip:
                skip -= 1
                continue
            skip, self.lines = 0, self.lines + 1 if at == self.at else 1
            self.at = at
            yield at, text


def show_logs(agent: Agent, app: str, query: Mapping[str, str], *, follow: bool, timestamps: bool) -> int:
    """Print the lines; with ``follow`` until Ctrl-C or until the app is removed."""
    printed, asked, told = _Printed(), {**query, "timestamps": "1", "follow": str(int(follow))}, False
    while True:
        try:
            path = f"/v1/apps/{quote(app, safe='')}/logs?"
            for at, text in printed.new(agent.lines(path + urlencode(asked), {}, silence=None if follow else SECONDS)):
                sys.stdout.buffer.write((at.encode() + b" " + text if timestamps else text) + b"\n")
                sys.stdout.flush()
                told = False
        except (Refused, Unreachable) as error:
            if not follow or (isinstance(error, Refused) and error.status != _UNAVAILABLE):
                raise
            if not told:
                print(f"{error}; waiting for it", file=sys.stderr)
            told = True
        else:
            return 0
        if printed.at:
            asked = {name: value for name, value in asked.items() if name != "tail"} | {"since": printed.at}
        time.sleep(AGAIN_SECONDS)
