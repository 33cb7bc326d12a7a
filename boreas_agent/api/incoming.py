"""What a request says: its body, bounded in size and time, its path and its query.

Every fault becomes a 4xx with a sentence: 400 what is not JSON, 408 what does not arrive, 413 what is too
large (before it is buffered), 422 what is JSON but not what was asked for.
"""

from __future__ import annotations

import asyncio
import math
import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, TypeVar

from aiohttp import hdrs, web
from pydantic import AfterValidator, Field, ValidationError

from boreas_agent import strictjson
from boreas_agent.api.problems import answer, problem
from boreas_agent.errors import FieldError, Invalid, NotFound
from boreas_agent.model import STREAMS, OutputQuery
from boreas_agent.spec import APP_PATTERN, faults_of
from boreas_agent.spec.fields import Model, Plain, Seconds

MAX_BODY = 1024 * 1024
BODY_SECONDS = 30.0
MAX_WAIT_SECONDS = 3600.0
MAX_TAIL = 100_000
_APP = re.compile(APP_PATTERN)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _positive(seconds: float) -> float:
    if seconds <= 0:
        raise ValueError("must be greater than 0")
    return seconds


Reason = Annotated[Plain, Field(max_length=500)]


class NoOptions(Model):
    """The body of a request that has no options: empty, or an empty object."""


class DrainRequest(Model):
    """The body of a drain: why, for people."""

    reason: Reason | None = None


class HoldRequest(Model):
    """The body of a hold: why, and after how many seconds it ends by itself (never, where not given)."""

    reason: Reason | None = None
    seconds: Annotated[Seconds, AfterValidator(_positive)] | None = None


class RollbackRequest(Model):
    """The body of a rollback: the revision to go back to; the newest older one that was healthy, where not given."""

    to: Annotated[int, Field(ge=1, lt=2**62)] | None = None


Body = TypeVar("Body", bound=Model)


async def expect(request: web.Request) -> web.StreamResponse | None:
    """Answers ``Expect: 100-continue``; a body that would be refused for its size is not asked for."""
    if request.headers.get(hdrs.EXPECT, "").lower() != "100-continue":
        return problem(417, "the only expectation this agent knows is 100-continue")
    try:
        _check_length(request)
    except web.HTTPException as error:
        return answer(request, error)
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0  # of the final answer nothing was sent yet
    return None


async def json_body(request: web.Request) -> object:
    """The decoded body; raises the HTTPException for what is too large, too slow or not JSON."""
    try:
        return strictjson.loads(await _body(request))
    except ValueError as error:
        raise web.HTTPBadRequest(text=str(error)) from None


async def options(request: web.Request, model: type[Body]) -> Body:
    """The body as ``model``; an empty one is as good as ``{}``. Raises Invalid."""
    body = await _body(request)
    try:
        data = strictjson.loads(body) if body.strip() else {}
    except ValueError as error:
        raise web.HTTPBadRequest(text=str(error)) from None
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise Invalid(tuple(faults_of(error, ""))) from None


async def _body(request: web.Request) -> bytes:
    _check_length(request)
    if request.content.is_eof():  # as good as always: it came in one piece with the headers
        body = request.content.read_nowait()
        if len(body) > MAX_BODY:
            raise web.HTTPRequestEntityTooLarge(MAX_BODY)
        return body
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout(text=f"the body did not arrive within {BODY_SECONDS:.0f} seconds") from None


def _check_length(request: web.Request) -> None:
    if (request.content_length or 0) > MAX_BODY:
        raise web.HTTPRequestEntityTooLarge(MAX_BODY)


def app_name(request: web.Request) -> str:
    """The app in the path; raises NotFound for what cannot be a name, since no such app can exist."""
    name = request.match_info["app"]
    if not _APP.fullmatch(name):
        raise NotFound(f"there is no app named {name[:100]!r}")
    return name


def output_query(request: web.Request) -> OutputQuery:
    """Which lines of an app's output the query asks for. Raises Invalid with every fault."""
    query, faults = request.query, []
    replica = query.get("replica")
    if replica is not None and not re.fullmatch(r"[0-9]{1,6}", replica):
        faults.append(FieldError("replica", "must be the number of a replica, from 0 on"))
    tail = query.get("tail")
    if tail is not None and not re.fullmatch(r"[0-9]{1,18}|all", tail):
        faults.append(FieldError("tail", "must be a number of lines, or all"))
    stream = query.get("stream")
    if stream not in (None, "", "all", *STREAMS):
        faults.append(FieldError("stream", "must be stdout or stderr; leave it out for both"))
    since = query.get("since")
    try:
        after = None if since is None else _moment(since)
    except (ValueError, OverflowError):
        faults.append(FieldError("since", "must be a time such as 2024-01-01T00:00:00Z, or a number of seconds from now back"))
    if faults:
        raise Invalid(tuple(faults))
    return OutputQuery(
        tail=None if tail in (None, "all") else min(int(tail), MAX_TAIL),
        since=after,
        stream=next((known for known in STREAMS if known == stream), None),
        replica=None if replica is None else int(replica),
        follow=flag(request, "follow"),
    )


def _moment(text: str) -> datetime:
    """In UTC; nothing was written before 1970."""
    if re.fullmatch(r"[0-9]{1,10}(\.[0-9]{1,9})?", text):
        return max(datetime.now(UTC) - timedelta(seconds=float(text)), _EPOCH)
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time without a zone is anybody's guess")
    return max(moment.astimezone(UTC), _EPOCH)


def wait_seconds(request: web.Request) -> float | None:
    """``?wait=SECONDS``, at most an hour; None where not given. Raises Invalid."""
    if not request.rel_url.raw_query_string or (text := request.query.get("wait")) is None:
        return None
    seconds = float(text) if re.fullmatch(r"[0-9]{1,18}(\.[0-9]{1,18})?", text) else math.nan
    if math.isnan(seconds):
        raise Invalid((FieldError("wait", "must be a number of seconds, such as 60 or 0.5"),))
    return min(seconds, MAX_WAIT_SECONDS)


def whole_number(request: web.Request, name: str, default: int | None, most: int, least: int = 1) -> int | None:
    """A whole number of the query; ``default`` where not given, ``most`` where it is more. Raises Invalid."""
    text = request.query.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"[0-9]{1,18}", text) or int(text) < least:
        raise Invalid((FieldError(name, f"must be a whole number of {least} or more"),))
    return min(int(text), most)


def flag(request: web.Request, name: str) -> bool:
    """``1`` or ``true``, ``0`` or ``false`` in the query; no where not given. Raises Invalid."""
    text = request.query.get(name, "0").lower()
    if text not in {"1", "true", "0", "false"}:
        raise Invalid((FieldError(name, "must be 1 or 0"),))
    return text in {"1", "true"}
