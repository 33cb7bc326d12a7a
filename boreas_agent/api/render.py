"""What the store knows, as the JSON that people and programs read. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from aiohttp import web

from boreas_agent.clock import timestamp
from boreas_agent.model import Drained, Head, Hold, Status
from boreas_agent.node import NodeFacts
from boreas_agent.registration import Registration
from boreas_agent.store.values import Receipt

HEALTHY = 80
"""The platform's controller counts a level of 80 or more as a successful deployment."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What status says besides the apps; ``operator`` None: the node does not register itself."""

    node: NodeFacts
    operator: Registration | None


_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
_HEADERS = {"Content-Type": "application/json", "Server": "boreas-agent"}


def dumps(value: object) -> bytes:
    """JSON in ASCII, so that no text from a request can make it unencodable, with a newline for terminals."""
    return _encode(value).encode("ascii") + b"\n"


def ok(value: object) -> web.Response:
    """A 200 with ``value`` as JSON."""
    return web.Response(body=dumps(value), headers=_HEADERS)


def receipt(of: Receipt) -> dict[str, Any]:
    """The answer to a recorded request."""
    return {
        "success": True,
        "message": of.message,
        "app": of.app,
        "version": of.version,
        "revision": of.revision,
        "changed": of.changed,
    }


def drained(of: Drained | None) -> dict[str, Any] | None:
    """Who drained the node, why and when; null where nobody did."""
    return None if of is None else {"by": of.by, "reason": of.reason, "since": timestamp(of.at)}


def drain_receipt(of: Drained | None, changed: bool) -> dict[str, Any]:
    """The answer to a recorded drain, or to its end."""
    state = (
        "the node is drained: all apps stop and stay stopped until the drain is ended" if of else "the node is not drained: its apps run"
    )
    return {"success": True, "message": state if changed else f"unchanged: {state}", "changed": changed, "drained": drained(of)}


def outcome(of: Receipt, head: Head | None) -> dict[str, Any]:
    """``healthy`` and ``status`` of the revision of a receipt: never another revision's health beside this one's number."""
    if head is None:
        return {"healthy": {"level": 0, "msg": "removed"}, "status": Status.REMOVING}
    if head.revision.revision != of.revision:
        status = Status.REMOVING if head.revision.removed else Status.FAILED
        return {"healthy": {"level": 0, "msg": f"superseded by revision {head.revision.revision}"}, "status": status}
    return {"healthy": _healthy(head), "status": head.health.status}


def app_status(head: Head) -> dict[str, Any]:
    """The status object of one app."""
    revision = head.revision
    return {
        "app": revision.app,
        "version": revision.version,
        "healthy": _healthy(head),
        "status": head.health.status,
        "updated": timestamp(head.updated),
        "revision": revision.revision,
        "replicas": revision.pkg.replicas,
        "type": revision.pkg.type,
        "kind": revision.kind,
        "restarts": sum(attempts.restarts for attempts in head.attempts.values()),
        "held": None if head.hold is None else _held(head.hold),
    }


def node_status(heads: Mapping[str, Head], around: Surroundings | None = None) -> dict[str, Any]:
    """All apps by name, and the node's own level: that of the worst app that anybody wants to be up; then the machine itself."""
    apps = [heads[name] for name in sorted(heads)]
    levels = [head.health.level for head in apps if _counts(head)]
    healthy = sum(level >= HEALTHY for level in levels)
    return {
        "apps": [app_status(head) for head in apps],
        "healthy": {"level": min(levels, default=100), "msg": f"{healthy} of {len(levels)} apps healthy"},
        **({} if around is None else {"node": _node(around.node), "operator": _operator(around.operator)}),
    }


def _node(of: NodeFacts) -> dict[str, Any]:
    about, sample, docker = of.about, of.sample, of.docker
    return {
        "id": about.id,
        "identity": about.identity,
        "hostname": about.hostname,
        "version": about.version,
        "started_at": timestamp(about.started),
        "docker": {
            "enabled": docker.enabled,
            "reachable": docker.reachable,
            "version": docker.version,
            "since": _time(docker.since),
            "message": docker.message,
        },
        "disk": None if sample is None else {"path": str(of.work_dir), "total": sample.disk_total, "free": sample.disk_free},
        "load": None if sample is None else list(sample.load),
        "cpus": about.cpus,
        "memory": None if sample is None else {"total": sample.memory_total, "available": sample.memory_available},
        "sampled_at": None if sample is None else timestamp(sample.at),
        "conditions": [
            {"type": one.type, "status": one.status, "message": one.message, "since": timestamp(one.since)} for one in of.conditions
        ],
    }


def _operator(of: Registration | None) -> dict[str, Any] | None:
    if of is None:
        return None
    return {
        "url": of.url,
        "agent_id": of.agent_id,
        "agent_url": of.agent_url,
        "registered": of.registered,
        "since": timestamp(of.since),
        "last_error": of.last_error,
    }


def _time(at: datetime | None) -> str | None:
    return None if at is None else timestamp(at)


def revisions(app: str, rows: Iterable[dict[str, Any]], limit: int) -> dict[str, Any]:
    """One page of an app's revisions; ``next`` is the ``before`` of the page that follows, null on the last one."""
    page = list(rows)
    return {"app": app, "revisions": page, "next": page[-1]["revision"] if len(page) == limit else None}


def _counts(head: Head) -> bool:
    return head.hold is None and head.health.status not in (Status.STOPPED, Status.REMOVING)


def _healthy(head: Head) -> dict[str, Any]:
    msg = head.health.msg
    return {"level": head.health.level, "msg": msg if head.hold is None else f"{msg} ({_held_msg(head.hold)})"}


def _held(hold: Hold) -> dict[str, Any]:
    return {"by": hold.by, "reason": hold.reason, "until": None if hold.until is None else timestamp(hold.until)}


def _held_msg(hold: Hold) -> str:
    until = "until released" if hold.until is None else f"until {timestamp(hold.until)}"
    return f"held by {hold.by} {until}: {hold.reason}" if hold.reason else f"held by {hold.by} {until}"
