"""What a request says: its body, bounded in size and time, its path and its query.

Every fault becomes a 4xx with a sentence: 400 what is not JSON, 408 what does not arrive, 413 what is too
large (before it is buffered), 422 what is JSON but not what was asked for.
"""

from __future__ import annotations

import asyncio
import math
import re
from typing import Annotated, TypeVar

from aiohttp import hdrs, web
from pydantic import AfterValidator, Field, ValidationError

from boreas_agent import strictjson
from boreas_agent.api.problems import answer, problem
from boreas_agent.errors import FieldError, Invalid, NotFound
from boreas_agent.fields import Model, Plain, Seconds
from boreas_agent.spec import APP_PATTERN, faults_of

MAX_BODY = 1024 * 1024
BODY_SECONDS = 30.0
MAX_WAIT_SECONDS = 3600.0
_APP = re.compile(APP_PATTERN)


def _positive(seconds: float) -> float:
    if seconds <= 0:
        raise ValueError("must be greater than 0")
    return seconds


class NoOptions(Model):
    """The body of a request that has no options: empty, or an empty object."""


class DrainRequest(Model):
    """The body of a drain: why, for people."""

    reason: Annotated[Plain, Field(max_length=500)] = ""


class HoldRequest(Model):
    """The body of a hold: why, and after how many seconds it ends by itself (never, where not given)."""

    reason: Annotated[Plain, Field(max_length=500)] = ""
    seconds: Annotated[Seconds, AfterValidator(_positive)] | None = None


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


def wait_seconds(request: web.Request) -> float | None:
    """``?wait=SECONDS``, at most an hour; None where not given. Raises Invalid."""
    if not request.rel_url.raw_query_string or (text := request.query.get("wait")) is None:
        return None
    seconds = float(text) if re.fullmatch(r"[0-9]{1,18}(\.[0-9]{1,18})?", text) else math.nan
    if math.isnan(seconds):
        raise Invalid((FieldError("wait", "must be a number of seconds, such as 60 or 0.5"),))
    return min(seconds, MAX_WAIT_SECONDS)


def whole_number(request: web.Request, name: str, default: int | None, most: int) -> int | None:
    """A positive whole number of the query; ``default`` where not given, ``most`` where it is more. Raises Invalid."""
    text = request.query.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"[0-9]{1,18}", text) or int(text) == 0:
        raise Invalid((FieldError(name, "must be a whole number of 1 or more"),))
    return min(int(text), most)
