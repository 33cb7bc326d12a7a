"""``python -m benchmarks [NAME…]``: one table. A figure that misses its bound is said, not punished: the exit status
tells only whether everything that was asked for could be measured.
"""

from __future__ import annotations

import argparse
import signal
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from rich.console import Console

from benchmarks import applying, containers, fetching, footprint, noise, probing, pulling, starting
from benchmarks.report import Benchmark, Line, Skipped, table, unmeasured

BENCHMARKS: Mapping[str, Benchmark] = MappingProxyType(
    {
        "apply-throughput": applying.throughput,
        "apply-latency": applying.latency,
        "process-restart": starting.restart,
        "process-start": starting.start,
        "burst": starting.burst,
        "container-start": containers.start,
        "container-restart": containers.restart,
        "image-pull": pulling.pull,
        "memory": footprint.memory,
        "idle": footprint.idle,
        "probe-cost": probing.cost,
        "probe-fairness": probing.fairness,
        "artifact-fetch": fetching.fetch,
        "noisy-neighbour": noise.neighbour,
    }
)

WIDTH = 150
"""Into a file, where there is no terminal to ask, the table is not squeezed."""


def main(arguments: Sequence[str]) -> int:
    """Run what was asked for, by default everything."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measures the agent against what it stands on.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"all by default; of: {', '.join(BENCHMARKS)}")
    names: list[str] = parser.parse_args(arguments).names or list(BENCHMARKS)
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"there is no benchmark named {unknown[0]}; there are {', '.join(BENCHMARKS)}")
    for interruption in (signal.SIGINT, signal.SIGTERM):
        signal.signal(interruption, lambda number, _frame: sys.exit(128 + number))  # on the way out everything is stopped
    lines = list(_measured(names))
    terminal = Console()
    Console(width=max(terminal.width, WIDTH)).print(table(lines))
    return 1 if any(line.verdict == "failed" for line in lines) else 0


def _measured(names: Sequence[str]) -> Iterator[Line]:
    """One that fails must not cost the figures of the others."""
    progress = Console(stderr=True)
    for name in names:
        progress.print(f"measuring {name} …", style="dim")
        try:
            yield from BENCHMARKS[name]()
        except Skipped as reason:
            yield unmeasured(name, "skipped", str(reason))
        except Exception as error:  # noqa: BLE001
            traceback.print_exc()
            yield unmeasured(name, "failed", f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
