"""What people see. Apps choose their own messages, so nothing is printed as markup or with control characters."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

PIPE_WIDTH = 100_000
"""Into a pipe nothing is cut off or wrapped: the next program wants whole lines."""


def is_terminal() -> bool:
    """Somebody is watching, and the cursor may be moved."""
    return sys.stdout.isatty()


def clean(text: str) -> str:
    """``text`` without anything that would drive a terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "�" for c in text)


def print_line(text: str) -> None:
    """One line, at once: progress is of no use when it sits in a buffer."""
    print(clean(text), flush=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], styles: Mapping[int, str] | None = None) -> Table:
    """A plain table; ``styles`` gives rows a colour by their number."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=box.SIMPLE_HEAD if is_terminal() else None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        shown.add_column(Text(clean(column)), overflow="fold")
    for number, row in enumerate(rows):
        shown.add_row(*(Text(clean(_cell(value))) for value in row), style=(styles or {}).get(number))
    return shown


def print_table(shown: Table) -> None:
    """To stdout, as wide as the terminal or, into a pipe, as wide as it takes."""
    from rich.console import Console

    if is_terminal():
        Console(highlight=False).print(shown)
        return
    console = Console(width=PIPE_WIDTH, highlight=False)
    with console.capture() as captured:
        console.print(shown)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))


def status_table(apps: Sequence[Mapping[str, Any]]) -> Table:
    """One line an app."""
    rows, styles = [], {}
    for number, app in enumerate(apps):
        healthy = app.get("healthy") or {}
        level = int(healthy.get("level", 0))
        styles[number] = "green" if level >= 80 else "yellow" if level > 0 or app.get("status") in {"stopped", "removing"} else "red"
        rows.append(
            (
                app.get("app"),
                app.get("version"),
                app.get("revision"),
                app.get("type"),
                app.get("replicas"),
                app.get("status"),
                level,
                app.get("updated"),
                healthy.get("msg"),
            )
        )
    return table(("APP", "VERSION", "REV", "TYPE", "REPLICAS", "STATUS", "LEVEL", "UPDATED", "WHY"), rows, styles)


def node_lines(answer: Mapping[str, Any]) -> list[str]:
    """The machine in one line, and one more for everything about it that people should know. Nothing from an older agent."""
    node, operator = answer.get("node"), answer.get("operator")
    if not node:
        return []
    words = [f"{node.get('id')}: boreas-agent {node.get('version')}", *_machine(node)]
    docker = node.get("docker") or {}
    if docker.get("reachable"):
        words.append(f"Docker {docker.get('version')}")
    if operator and operator.get("registered"):
        words.append(f"registered with {operator.get('url')}")
    lines = [", ".join(words)]
    lines += [f"{one.get('type')}: {one.get('message')}" for one in node.get("conditions") or () if one.get("status")]
    wanted = docker.get("version") or any(app.get("type") == "docker" for app in answer.get("apps") or ())
    if docker.get("reachable") is False and wanted:  # most machines without an engine are so on purpose
        lines.append(f"Docker: {docker.get('message')}")
    if operator and operator.get("last_error"):
        lines.append(f"cannot register with {operator.get('url')}: {operator['last_error']}")
    return lines


def _machine(node: Mapping[str, Any]) -> list[str]:
    from rich.filesize import decimal

    disk, memory, load = node.get("disk"), node.get("memory"), node.get("load")
    if not disk or not memory or not load:
        return []
    return [
        f"disk {decimal(disk['free'])} of {decimal(disk['total'])} free",
        f"memory {decimal(memory['available'])} of {decimal(memory['total'])} free",
        f"load {load[0]:.2f}",
    ]


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{len(value)} bytes" if isinstance(value, bytes) else str(value)
