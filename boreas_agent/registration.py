"""Making the node known to the platform's controller, Operator-PM, and keeping it known.

The controller documents one call, ``POST {url}/api/v1/agents``, and keeps its agents in memory; there is no documented
way to ask whether it still knows one. So the call, which says the same thing every time, is simply made again every
``interval`` seconds: a controller that was restarted knows the node again that much later at most. One that is away, hangs,
or answers anything at all costs a try every now and then, with backoff, and nobody else notices.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import aiohttp
from msgspec import Struct
from msgspec.structs import replace

from boreas_agent import __version__
from boreas_agent.clock import Clock
from boreas_agent.model import Event
from boreas_agent.notices import Notices
from boreas_agent.outward import Names, quoted, why

if TYPE_CHECKING:
    from tenacity import RetryCallState

log = logging.getLogger(__name__)

PATH = "/api/v1/agents"
ANSWER_SECONDS = 10.0
MOST_RETRY_SECONDS = 60.0
MOST_ANSWER_BYTES = 16 * 1024
LOST_AFTER = 3
"""So many tries in a row must fail before a node that was registered counts as lost: a controller may be restarted."""


class Registration(Struct, frozen=True):
    """How it stands; for people, so urls are without credentials. ``since``: when ``registered`` last changed."""

    url: str
    agent_id: str
    agent_url: str
    registered: bool
    since: datetime
    last_error: str | None = None


class Registrant(Struct, frozen=True):
    """Who registers where: the controller's base url, and what it is told."""

    url: str
    agent_id: str
    agent_url: str


class _Failed(Exception):
    """A try that came to nothing; the message completes 'cannot register with URL: …'."""


class Registrar:
    """Registers ``who`` every ``interval`` seconds; ``registration`` says how that goes."""

    def __init__(self, who: Registrant, interval: float, clock: Clock, notices: Notices, timeout: float = ANSWER_SECONDS) -> None:
        self._who = who
        self._interval = interval
        self._clock = clock
        self._notices = notices
        self._timeout = timeout
        self.registration = Registration(without_credentials(who.url), who.agent_id, without_credentials(who.agent_url), False, clock.now())

    async def run(self) -> None:
        """Until cancelled. Nothing that the controller does ends it."""
        from tenacity import AsyncRetrying, wait_exponential_jitter, wait_random  # noqa: PLC0415  # for nodes that register

        most = min(self._interval, MOST_RETRY_SECONDS)
        wait = wait_exponential_jitter(max=most * 0.9) + wait_random(0, most * 0.1)
        async with _session(self._timeout) as session:
            while True:
                await AsyncRetrying(wait=wait, before_sleep=self._failed, sleep=asyncio.sleep)(self._register, session)
                await self._succeeded()
                await asyncio.sleep(self._interval * random.uniform(0.9, 1.0))  # noqa: S311  # jitter, not a secret

    async def _register(self, session: aiohttp.ClientSession) -> None:
        """One try. Raises _Failed."""
        told = {"agent_id": self._who.agent_id, "agent_url": self._who.agent_url}
        try:
            async with session.post(self._who.url + PATH, json=told, allow_redirects=False) as answer:
                _check(answer.status, await _bounded(answer.content), answer.headers.get("Location", ""))
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _Failed(why(error, self._timeout)) from error

    async def _succeeded(self) -> None:
        state = self.registration
        since = state.since if state.registered else self._clock.now()
        self.registration = replace(state, registered=True, since=since, last_error=None)
        if not state.registered:
            log.info("registered with the controller", extra={"url": state.url, "agent_id": state.agent_id, "agent_url": state.agent_url})
        message = f"registered with {state.url} as {state.agent_id} at {state.agent_url}"
        await self._notices.say("operator", "registered", Event("OperatorRegistered", message))

    async def _failed(self, attempt: RetryCallState) -> None:
        """After each try in vain; what is said and logged is only that it has begun to fail."""
        error = attempt.outcome.exception() if attempt.outcome else None
        reason = str(error) if isinstance(error, _Failed) else f"internal error: {type(error).__name__}: {error}"
        message = f"cannot register with {self.registration.url}: {reason}; trying again"
        state = self.registration = replace(self.registration, last_error=reason)
        if state.registered and attempt.attempt_number < LOST_AFTER:
            return
        if attempt.attempt_number == (LOST_AFTER if state.registered else 1):
            fault = None if isinstance(error, _Failed) else error
            log.warning("cannot register with the controller, trying again", exc_info=fault, extra={"url": state.url, "error": reason})
        if state.registered:
            self.registration = replace(state, registered=False, since=self._clock.now())
        kind = "OperatorLost" if state.registered else "OperatorUnreachable"
        await self._notices.say("operator", "failing", Event(kind, message))


def reachable_url(host: str, port: int, hostname: str, scheme: str) -> str:
    """Where others reach an agent that listens on ``host``: by that address, or by the machine's name where it is any address."""
    address = hostname
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(host).is_unspecified:
            host = ""
    address = host or hostname
    return f"{scheme}://[{address}]:{port}" if ":" in address else f"{scheme}://{address}:{port}"


def without_credentials(url: str) -> str:
    """``url`` as it may be shown."""
    parts = urlsplit(url)
    return parts._replace(netloc=f"***@{parts.netloc.rpartition('@')[2]}").geturl() if "@" in parts.netloc else url


# --- the call ------------------------------------------------------------------------------------


@asynccontextmanager
async def _session(timeout: float) -> AsyncIterator[aiohttp.ClientSession]:
    """No cookies, no proxy from the environment, no connection kept, nothing unpacked: every try stands for itself."""
    connector = aiohttp.TCPConnector(resolver=Names(timeout), use_dns_cache=False, force_close=True, limit=1)
    async with aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=timeout),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        headers={"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": f"boreas-agent/{__version__}"},
    ) as session:
        yield session


async def _bounded(content: aiohttp.StreamReader) -> bytes:
    """The answer's beginning; more is not read, however long it goes on."""
    try:
        return await content.readexactly(MOST_ANSWER_BYTES)
    except asyncio.IncompleteReadError as error:
        return error.partial


def _check(status: int, body: bytes, location: str) -> None:
    """Raises _Failed where the answer is no yes."""
    said = _message(body)
    match status:
        case HTTPStatus.CONFLICT:
            return  # it knows this agent already
        case _ if 200 <= status < 300:
            if said is not None and said[0]:
                raise _Failed(f"it answered {status} without success{said[1]}")
        case _ if 300 <= status < 400:
            raise _Failed(f"it answered {status}{_elsewhere(location)}; redirects are not followed, correct agent.operator.url")
        case _:
            raise _Failed(f"it answered {status}{said[1] if said else ''}")


def _elsewhere(location: str) -> str:
    """Where a redirect leads, without what may be secret in it."""
    try:
        return f", go to {quoted(without_credentials(urlsplit(location)._replace(query='', fragment='').geturl()))}" if location else ""
    except ValueError:
        return ""


def _message(body: bytes) -> tuple[bool, str] | None:
    """Whether a JSON answer says that it was in vain, and its words; None where it is something else."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(answer, dict):
        return None
    words = next((answer[key] for key in ("message", "error", "detail") if isinstance(answer.get(key), str)), "")
    return answer.get("success") is False, f": {quoted(words)}" if words else ""
