"""The requests that are measured: what a real app's spec looks like, encoded ahead so that encoding is not measured."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.wire import encode

IMMEDIATE = {"initial_delay_seconds": 0, "reset_after_seconds": 0}
"""A restart policy that never waits, because what is measured is the work, not the back-off."""


def new_versions(app: str, run: str) -> Iterator[bytes]:
    """Applies of ``app`` without end, each a new version and so a new revision; no instance, so that nothing but recording is measured."""
    spec = {
        "type": "binary",
        "command": ["/opt/shop/bin/api", "--listen", "127.0.0.1:9000", "--workers", "4"],
        "environment": {"LOG_LEVEL": "info", "DATABASE_URL": "postgresql://shop@db.internal/shop", "discovery.type": "single-node"},
        "replicas": 0,
        "restart": {"policy": "always", "max_delay_seconds": 30},
        "stop": {"signal": "SIGINT", "grace_seconds": 20},
    }
    number = 0
    while True:
        number += 1
        yield apply(app, f"{run}.{number}", spec)


def keep_running(app: str, command: Sequence[str]) -> bytes:
    """The apply of a program that is restarted at once however often it ends."""
    return apply(app, "v1", {"type": "binary", "command": list(command), "restart": IMMEDIATE})


def apply(app: str, version: str, pkg: dict[str, Any]) -> bytes:
    """The whole request."""
    return encode("POST", "/v1/apply", json.dumps({"app": app, "version": version, "pkg": pkg}).encode())
