"""What a benchmark comes to: one line with both figures, the ratio or amount, the bound, and whether it holds."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.table import Table

Benchmark = Callable[[], Sequence["Line"]]


class Skipped(Exception):
    """The machine lacks what the benchmark needs; the message says what."""


@dataclass(frozen=True, slots=True)
class Bound:
    """What a figure should be: at most, or at least, ``limit``."""

    limit: float
    least: bool = False

    def holds(self, value: float) -> bool:
        """Whether ``value`` is on the right side."""
        return value >= self.limit if self.least else value <= self.limit

    @property
    def sign(self) -> str:
        """For people."""
        return "≥" if self.least else "≤"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table, already in words; ``verdict`` is ok, MISSED, skipped or failed."""

    title: str
    agent: str
    reference: str
    figure: str
    bound: str
    verdict: str


def compared(title: str, agent: Sequence[float], reference: Sequence[float], bound: Bound, show: Callable[[Sequence[float]], str]) -> Line:
    """The median of ``agent`` as a multiple of the median of ``reference``."""
    ratio = statistics.median(agent) / statistics.median(reference)
    return Line(title, show(agent), show(reference), f"{ratio:.2f} ×", f"{bound.sign} {bound.limit:g} ×", _verdict(bound, ratio))


def amount(title: str, value: float, unit: str, bound: Bound, detail: str = "") -> Line:
    """A figure with a bound of its own; ``detail`` says what it is made of."""
    return Line(title, detail, "", f"{value:.2f} {unit}", f"{bound.sign} {bound.limit:.4g} {unit}", _verdict(bound, value))


def unmeasured(name: str, verdict: str, why: str) -> Line:
    """Stands in the table for a benchmark that could not be run."""
    return Line(f"{name}: {why}", "", "", "", "", verdict)


def milliseconds(seconds: Sequence[float]) -> str:
    """The median and how far most samples spread."""
    middle, ninth = statistics.median(seconds) * 1000, statistics.quantiles(seconds, n=10)[-1] * 1000
    return f"{middle:.2f} ms (p90 {ninth:.2f})"


def rate(per_second: Sequence[float]) -> str:
    """The median and the range."""
    return f"{statistics.median(per_second):,.0f}/s ({min(per_second):,.0f}–{max(per_second):,.0f})"


def table(lines: Sequence[Line]) -> Table:
    """All lines, for the terminal."""
    shown = Table(pad_edge=False)
    for column in ("", "agent", "reference"):
        shown.add_column(column)
    for column in ("figure", "bound"):
        shown.add_column(column, justify="right", no_wrap=True)
    shown.add_column("")
    for line in lines:
        style = {"ok": "green", "skipped": "yellow"}.get(line.verdict, "red")
        shown.add_row(line.title, line.agent, line.reference, line.figure, line.bound, f"[{style}]{line.verdict}[/]")
    return shown


def _verdict(bound: Bound, value: float) -> str:
    return "ok" if bound.holds(value) else "MISSED"
