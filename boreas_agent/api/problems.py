"""Every answer that is not a success, in one form: problem+json (RFC 9457) with ``success`` and ``message``.

The table of what becomes which status is here and nowhere else; handlers raise what they mean
(``errors.py``, or an ``HTTPException`` whose text is the sentence) and never build an error answer.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus

from aiohttp import web
from aiohttp.web_protocol import RequestPayloadError

from boreas_agent.api.render import dumps
from boreas_agent.errors import Conflict, FieldError, Invalid, NotFound, Transient

_log = logging.getLogger(__name__)

MAX_FIELDS = 50
"""Faults named in one answer: a hostile body has a hundred thousand, and nobody reads more than a screenful."""


def problem(
    status: int,
    message: str,
    fields: Sequence[FieldError] = (),
    headers: Mapping[str, str] | None = None,
    members: Mapping[str, object] | None = None,
) -> web.Response:
    """An error answer; ``members`` are put beside ``success`` and ``message`` (and win over them)."""
    body: dict[str, object] = {"success": False, "message": message, "status": status, "title": HTTPStatus(status).phrase}
    if fields:
        body["errors"] = [{"field": fault.field[:300], "message": fault.message} for fault in fields[:MAX_FIELDS]]
    all_headers = {"Content-Type": "application/problem+json", "Server": "boreas-agent"} | dict(headers or {})
    return web.Response(status=status, body=dumps(body | dict(members or {})), headers=all_headers)


def answer(request: web.BaseRequest, error: Exception) -> web.Response:
    """The answer to a request whose handling raised ``error``; what nobody meant to raise is logged and answers 500."""
    match error:
        case Invalid():
            return problem(422, _summary(error.fields), error.fields)
        case NotFound():
            return problem(404, str(error))
        case Conflict():
            return problem(409, str(error))
        case Transient():  # CannotRecord above all: nothing was acknowledged, trying again may work
            return problem(503, str(error), headers={"Retry-After": "5"})
        case web.HTTPException():
            return _http(request, error)
        case RequestPayloadError():
            return problem(400, "the body is not what the headers say (chunks, length or encoding)")
        case ConnectionError():  # nobody is left to read this answer
            return problem(400, "the connection was lost before the request was complete")
        case _:
            _log.error("request failed", exc_info=error, extra={"method": request.method, "path": request.path})
            return problem(500, "the agent failed to handle this request; its log says why")


def _summary(fields: Sequence[FieldError]) -> str:
    said = _sentence(fields[0])
    return said if len(fields) == 1 else f"{said} (and {len(fields) - 1} more)"


def _sentence(fault: FieldError) -> str:
    subject = fault.field[:300] or "the body"
    if fault.message.startswith(("must ", "is ")):
        return f"{subject} {fault.message}"
    return f"{subject}: {fault.message}" if fault.field else fault.message


def _http(request: web.BaseRequest, error: web.HTTPException) -> web.Response:
    match error:
        case web.HTTPMethodNotAllowed():
            allowed = ", ".join(sorted(error.allowed_methods))
            return problem(405, f"{request.path} does not know {request.method}; it knows {allowed}", headers={"Allow": allowed})
        case web.HTTPRequestEntityTooLarge():
            return problem(413, "the body is larger than 1 MiB (1048576 bytes)")
        case web.HTTPUnauthorized():
            return problem(401, error.text or error.reason, headers={"WWW-Authenticate": error.headers["WWW-Authenticate"]})
        case web.HTTPNotFound():
            return problem(404, f"there is nothing at {request.path}")
        case _:
            return problem(error.status, error.text or error.reason)
