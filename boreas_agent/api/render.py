"""What the store knows, as the JSON that people and programs read. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any

from aiohttp import web
from msgspec import Struct, field

from boreas_agent import jsontext, rollout
from boreas_agent.clock import timestamp
from boreas_agent.model import (
    Action,
    Check,
    Deployment,
    Drained,
    Head,
    Hold,
    OutputLine,
    PostStart,
    Prepare,
    PreStart,
    Reload,
    Start,
    Status,
    Stop,
)
from boreas_agent.node import NodeFacts
from boreas_agent.registration import Registration
from boreas_agent.spec import BinaryPkg, DockerPkg, Hook, ScriptPkg
from boreas_agent.store.values import Preview, Receipt
from boreas_agent.usage import Usage

HEALTHY = 80
"""The platform's controller counts a level of 80 or more as a successful deployment."""


class Surroundings(Struct, frozen=True):
    """What status says besides the apps; ``operator`` None: the node does not register itself. ``usage``: by app, as last sampled."""

    node: NodeFacts
    operator: Registration | None
    usage: Mapping[str, Usage] = field(default_factory=lambda: MappingProxyType({}))


_HEADERS = {"Content-Type": "application/json", "Server": "boreas-agent"}


def dumps(value: object) -> bytes:
    """JSON, with a newline for terminals."""
    return jsontext.compact(value).encode("ascii") + b"\n"


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


def output(lines: Iterable[OutputLine], timestamps: bool) -> bytes:
    """Lines as they were written, with their times before them where ``timestamps`` says so."""
    if timestamps:
        return b"".join(timestamp(line.at).encode() + b" " + line.text + b"\n" for line in lines)
    return b"".join(line.text + b"\n" for line in lines)


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


def app_status(head: Head, around: Surroundings | None = None) -> dict[str, Any]:
    """The status object of one app."""
    revision, used = head.revision, None if around is None else around.usage.get(head.app)
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
        "usage": None if used is None else _usage(used),
        "held": None if head.hold is None else _held(head.hold),
        "running_revision": head.running.revision,
        "running_version": head.running.version,
        "blocked": None if head.fallback is None else _blocked(head),
        "deployment": None if head.deployment is None else _deployment(head, head.deployment),
        **({"image": _image(head)} if isinstance(head.running.pkg, DockerPkg) else {}),
    }


def _usage(of: Usage) -> dict[str, Any]:
    """Of all its replicas: bytes, processor seconds since they started, and per cent of one processor since the sample before."""
    return {
        "memory_bytes": of.memory_bytes,
        "cpu_seconds": of.cpu_seconds,
        "cpu_percent": of.cpu_percent,
        "sampled_at": timestamp(of.at),
    }


def _image(head: Head) -> dict[str, Any]:
    """What is to run, as it was asked for, and the very bytes that it is: their id on this node, and where they can be fetched again."""
    pkg, ran = head.running.pkg, head.ran
    return {"reference": getattr(pkg, "image", ""), "id": ran.image or None, "digest": ran.digest or None}


def _blocked(head: Head) -> dict[str, Any]:
    return {
        "revision": head.revision.revision,
        "version": head.revision.version,
        "reason": head.deployment.reason if head.deployment else "",
    }


def _deployment(head: Head, deployment: Deployment) -> dict[str, Any]:
    """The current or last deployment; ``rollback_to`` is the revision that would come back if it failed now."""
    good = rollout.target(head)
    return {
        "kind": deployment.kind,
        "phase": deployment.stage,
        "outcome": deployment.outcome,
        "started_at": timestamp(deployment.started_at),
        "finished_at": None if deployment.finished_at is None else timestamp(deployment.finished_at),
        "reason": deployment.reason,
        "rollback_to": None if good is None or deployment.outcome is not None else good.revision.revision,
    }


def node_level(heads: Mapping[str, Head]) -> int:
    """That of the worst app that anybody wants to be up, 100 where there is none."""
    return min((head.health.level for head in heads.values() if _counts(head)), default=100)


def node_status(heads: Mapping[str, Head], around: Surroundings | None = None) -> dict[str, Any]:
    """All apps by name, and the node's own level: that of the worst app that anybody wants to be up; then the machine itself."""
    apps = [heads[name] for name in sorted(heads)]
    levels = [head.health.level for head in apps if _counts(head)]
    healthy = sum(level >= HEALTHY for level in levels)
    return {
        "apps": [app_status(head, around) for head in apps],
        "healthy": {"level": node_level(heads), "msg": f"{healthy} of {len(levels)} apps healthy"},
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


def deployments(app: str, rows: Iterable[dict[str, Any]], limit: int) -> dict[str, Any]:
    """One page of an app's deployments; ``next`` is the ``before`` of the page that follows, null on the last one."""
    page = list(rows)
    return {"app": app, "deployments": page, "next": page[-1]["id"] if len(page) == limit else None}


def events(rows: Iterable[dict[str, Any]], after: int | None) -> dict[str, Any]:
    """One page of events; ``next`` is the ``after`` of what follows, now or later."""
    page = list(rows)
    return {"events": page, "next": page[-1]["id"] if page else after}


def preview(of: Preview) -> dict[str, Any]:
    """What an apply would be answered, and the actions that would follow, in order."""
    return receipt(of.receipt) | {"actions": [shown for action in of.actions for shown in _actions(action)]}


def _actions(action: Action) -> Iterator[dict[str, Any]]:
    if isinstance(action, Stop) and action.pre_stop is not None:
        yield _named("pre_stop", action) | _hook(action.pre_stop) | {"cause": action.cause}
    yield _action(action)


_HOOKS = {PreStart: "pre_start", PostStart: "post_start"}


def _named(what: str, action: Action) -> dict[str, Any]:
    name = action.want.name if isinstance(action, Prepare | PreStart | Check | Start) else action.seen.name
    return {"action": what, "instance": str(name), "revision": name.revision, "replica": name.replica}


def _hook(hook: Hook) -> dict[str, Any]:
    return {"command": list(hook.exec.command), "timeout_seconds": hook.timeout_seconds}


def _action(action: Action) -> dict[str, Any]:
    shown = _named(_HOOKS.get(type(action), type(action).__name__.lower()), action)
    match action:
        case PreStart(_, hook) | PostStart(_, hook):
            shown |= _hook(hook)
        case Prepare(want) if isinstance(want.pkg, DockerPkg):
            shown["image"] = want.image or want.pkg.image
        case Prepare(want) if isinstance(want.pkg, BinaryPkg | ScriptPkg):
            shown["artifacts"] = [one.shown for one in want.pkg.artifacts]
        case Reload(_, want, signals):
            shown |= {"files": [file.path for file in want.pkg.files if file.reloads], "signals": list(signals)}
        case Stop(_, signal, grace_seconds):
            shown |= {"signal": signal, "grace_seconds": grace_seconds}
        case _:
            pass
    if isinstance(action, Prepare) and action.want.pkg.files:
        shown["files"] = [file.path for file in action.want.pkg.files]
    return shown | {"cause": action.cause}


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
