"""Images: which are here, and pulls that several apps may share.

An app that gives up leaves a shared pull to the others; the last one to leave cancels it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from boreas_agent.clock import Clock
from boreas_agent.drivers.docker_api import Client, DockerApi, Refused
from boreas_agent.drivers.docker_spec import pull_query, registry_of
from boreas_agent.drivers.docker_streams import Streams
from boreas_agent.errors import Terminal, Transient

_BELIEVED = 3.0
"""Seconds for which 'the image is here' is believed without asking again: a burst of replicas asks once."""
_MOST_BELIEVED = 1000


@dataclass(slots=True)
class _Pull:
    task: asyncio.Task[None]
    waiters: int = 0


class Images:
    """The images of one engine."""

    def __init__(self, api: DockerApi, streams: Streams, clock: Clock) -> None:
        self._api = api
        self._streams = streams
        self._clock = clock
        self._present: dict[str, float] = {}
        self._pulls: dict[str, _Pull] = {}

    async def present(self, app: str, reference: str) -> bool:
        """Whether the image is on this node. Raises Unavailable, and Terminal where the reference is malformed."""
        now = self._clock.boottime()
        if now - self._present.get(reference, -_BELIEVED) < _BELIEVED:
            return True
        try:
            await self._api.read(app, f"look for image {reference}", lambda client: client.inspect_image(reference))
        except Refused as error:
            if error.status == 404:
                return False
            raise (Terminal if error.status == 400 else Transient)(str(error)) from error
        if len(self._present) >= _MOST_BELIEVED:
            self._present.clear()
        self._present[reference] = now
        return True

    def doubt(self, reference: str) -> None:
        """The engine says that it has no such image after all."""
        self._present.pop(reference, None)

    async def pull(self, app: str, reference: str) -> None:
        """Fetch the image, together with whoever else is fetching it. Raises Transient, Terminal (malformed)."""
        pull = self._pulls.get(reference)
        if pull is None:
            pull = self._pulls[reference] = _Pull(asyncio.create_task(self._pull(app, reference)))
        pull.waiters += 1
        try:
            await asyncio.shield(pull.task)
        finally:
            pull.waiters -= 1
            if not pull.waiters:
                pull.task.cancel()
                if self._pulls.get(reference) is pull:
                    del self._pulls[reference]

    async def close(self) -> None:
        """Give every pull up."""
        tasks = [pull.task for pull in self._pulls.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _pull(self, app: str, reference: str) -> None:
        what = f"pull {reference}"
        try:
            credentials = await self._api.read(app, what, lambda client: _credentials(client, reference))
            await self._streams.pull(pull_query(reference), credentials, what)
        except Refused as error:
            if error.status == 400:
                raise Terminal(str(error)) from error
            raise
        if not await self.present(app, reference):
            raise Transient(f"cannot {what}: the engine reported success but does not have the image")


def _credentials(client: Client, reference: str) -> str | None:
    """What ``docker login`` has left for the image's registry, as the header the engine wants."""
    from docker.auth import get_config_header  # noqa: PLC0415  # in a thread, where the SDK is loaded already

    header = get_config_header(client, registry_of(reference))
    return header.decode("ascii") if isinstance(header, bytes) else header
