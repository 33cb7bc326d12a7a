"""``GET /openapi.json``: OpenAPI 3.1 of every endpoint.

What is sent is described by the models that validate it, so a field that is not accepted is not in here. What is answered is
described by models that only describe: answers are rendered without them, and a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any

from msgspec import Struct
from pydantic import Field, TypeAdapter
from pydantic.json_schema import models_json_schema

from boreas_agent import __version__
from boreas_agent.api import answers
from boreas_agent.api.incoming import DrainRequest, HoldRequest, NoOptions, RollbackRequest
from boreas_agent.spec import APP_PATTERN, Pkg
from boreas_agent.spec.fields import Model

_JSON = "application/json"
_PROBLEM = "application/problem+json"
_WHOLE = {"type": "integer", "minimum": 1}
_FLAG = {"type": "string", "enum": ["0", "1", "true", "false"], "default": "0"}

_WAIT = (
    "wait",
    "Hold the answer back until the app has converged or failed, for so many seconds at most.",
    {"type": "number", "minimum": 0},
)
_LIMIT = ("limit", "The most entries of a page.", _WHOLE)
_BEFORE = ("before", "Only what is older: `next` of the page before.", _WHOLE)
_EVENTS = (
    ("app", "Only those of one app.", {"type": "string"}),
    ("after", "Only those after the event with this id; otherwise the newest.", {"type": "integer", "minimum": 0}),
    _LIMIT,
    ("follow", "Go on as things happen, as Server-Sent Events; resumable by the header `Last-Event-ID`.", _FLAG),
)

_LOGS = (
    ("tail", "The last so many lines, or all of them.", {"type": "string", "pattern": "^([0-9]+|all)$", "default": "all"}),
    ("since", "From that time on (RFC 3339), or so many seconds back.", {"type": "string"}),
    ("stream", "One of the two.", {"type": "string", "enum": ["stdout", "stderr"]}),
    ("replica", "One replica.", {"type": "integer", "minimum": 0}),
    ("follow", "Go on as lines are written.", _FLAG),
    ("timestamps", "Put the time before each line.", _FLAG),
)


class Operation(Struct, frozen=True):
    """One endpoint. ``body`` and ``answer`` name schemas; an ``answer`` with a slash is the media type of plain text."""

    summary: str
    answer: str
    body: str | None = None
    query: tuple[tuple[str, str, Mapping[str, Any]], ...] = ()
    stream: bool = False


OPERATIONS: Mapping[tuple[str, str], Operation] = {
    ("POST", "/v1/apply"): Operation("Record the desired state of an app, durably.", "Receipt", "Submission", (_WAIT,)),
    ("POST", "/v1/plan"): Operation("What apply would cause, in order; changes nothing.", "Plan", "Submission"),
    ("GET", "/v1/status"): Operation("All apps, the node's own level, and the machine.", "NodeStatus"),
    ("GET", "/v1/status/{app}"): Operation("One app.", "AppStatus"),
    ("GET", "/v1/health"): Operation("Whether the agent can serve and record.", "Health"),
    ("GET", "/v1/ready"): Operation("Whether the first pass after the start has finished.", "Ready"),
    ("GET", "/v1/events"): Operation("What happened, oldest first.", "Events", query=_EVENTS, stream=True),
    ("GET", "/metrics"): Operation("Metrics for Prometheus.", "text/plain"),
    ("GET", "/openapi.json"): Operation("This document.", "Document"),
    ("POST", "/v1/drain"): Operation("Stop all apps, and keep them stopped.", "DrainReceipt", "DrainRequest"),
    ("POST", "/v1/undrain"): Operation("End a drain.", "DrainReceipt", "NoOptions"),
    ("DELETE", "/v1/apps/{app}"): Operation("Desired state: absent. History stays.", "Receipt", "NoOptions", (_WAIT,)),
    ("POST", "/v1/apps/{app}/restart"): Operation("Replace all instances by new ones.", "Receipt", "NoOptions", (_WAIT,)),
    ("POST", "/v1/apps/{app}/rollback"): Operation("Go back to an older revision.", "Receipt", "RollbackRequest", (_WAIT,)),
    ("POST", "/v1/apps/{app}/hold"): Operation("Leave the app exactly as it is.", "Receipt", "HoldRequest"),
    ("POST", "/v1/apps/{app}/release"): Operation("End a hold.", "Receipt", "NoOptions"),
    ("GET", "/v1/apps/{app}/revisions"): Operation("What was asked for, newest first.", "Revisions", query=(_LIMIT, _BEFORE)),
    ("GET", "/v1/apps/{app}/deployments"): Operation("What came of it, newest first.", "Deployments", query=(_LIMIT, _BEFORE)),
    ("GET", "/v1/apps/{app}/logs"): Operation("What the app wrote.", "text/plain", query=_LOGS),
}


@cache
def document() -> dict[str, Any]:
    """The whole of it, as JSON values; the same one every time."""
    paths: dict[str, dict[str, Any]] = {}
    for (method, path), operation in OPERATIONS.items():
        paths.setdefault(path, {})[method.lower()] = _operation(path, operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "boreas-agent", "version": __version__, "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"}},
        "paths": paths,
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}, "certificate": {"type": "mutualTLS"}},
        },
        "security": [{}, {"token": []}, {"certificate": []}, {"token": [], "certificate": []}],
    }


def _operation(path: str, of: Operation) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "query", "description": text, "schema": schema} for name, text, schema in of.query
    ]
    if "{app}" in path:
        parameters.append({"name": "app", "in": "path", "required": True, "schema": {"type": "string", "pattern": f"^{APP_PATTERN}$"}})
    content = {of.answer: {"schema": {"type": "string"}}} if "/" in of.answer else {_JSON: _schema(of.answer)}
    if of.stream:
        content["text/event-stream"] = {"schema": {"type": "string"}}
        parameters.append({"name": "Last-Event-ID", "in": "header", "description": "Go on after it.", "schema": {"type": "integer"}})
    responses = {
        "200": {"description": "Done." if of.body else "As asked for.", "content": content},
        "default": {"description": "Why not.", "content": {_PROBLEM: _schema("Problem")}},
    }
    described: dict[str, Any] = {"summary": of.summary, "parameters": parameters, "responses": responses}
    if of.body is not None:
        described["requestBody"] = {"required": of.body == "Submission", "content": {_JSON: _schema(of.body)}}
    return described


def _schema(name: str) -> dict[str, Any]:
    return {"schema": _ref(name)}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _schemas() -> dict[str, Any]:
    template = "#/components/schemas/{model}"
    pkg = TypeAdapter[Pkg](Annotated[Pkg, Field(discriminator="type")]).json_schema(ref_template=template)
    requests: tuple[type[Model], ...] = (DrainRequest, HoldRequest, NoOptions, RollbackRequest)
    _, sent = models_json_schema([(model, "validation") for model in requests], ref_template=template)
    _, answered = models_json_schema([(model, "validation") for model in answers.ALL], ref_template=template)
    return {
        **pkg.pop("$defs"),
        **sent["$defs"],
        **answered["$defs"],
        "Pkg": pkg,
        "Submission": _submission(),
        "Document": {"type": "object", "description": "An OpenAPI document."},
    }


def _submission() -> dict[str, Any]:
    """As ``spec.parse_submission`` reads it."""
    return {
        "type": "object",
        "properties": {
            "app": {"type": "string", "pattern": f"^{APP_PATTERN}$"},
            "version": {"type": "string", "minLength": 1, "maxLength": 128},
            "pkg": _ref("Pkg"),
            "package": {**_ref("Pkg"), "description": "Another name for pkg."},
            "force": {"type": "boolean", "default": False, "description": "Try a blocked revision anew."},
        },
        "required": ["app", "version"],
        "oneOf": [{"required": ["pkg"]}, {"required": ["package"]}],
        "additionalProperties": False,
    }
