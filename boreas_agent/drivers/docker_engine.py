"""The engine as a whole: whether it is there, and which version it is.

The event stream tells at once when it goes or comes; asking for the version tells whether it still answers.
"""

from __future__ import annotations

import asyncio

from boreas_agent.drivers.docker_api import DockerApi
from boreas_agent.errors import Unavailable

ANSWER_SECONDS = 5.0
_APP = ":engine"
"""No app has this name: nothing that hangs for an app takes this question's place."""


class EngineLink:
    """For whoever wants to show how the engine is; ``listening``: its event stream is up."""

    def __init__(self, api: DockerApi, *, enabled: bool) -> None:
        self._api = api
        self._changed = asyncio.Event()
        self.enabled = enabled
        self.listening = False

    def mark(self, *, listening: bool) -> None:
        """The event stream came up or went down."""
        if listening != self.listening:
            self.listening = listening
            self._changed.set()

    async def changed(self) -> None:
        """Returns once the stream has come or gone since the last time."""
        await self._changed.wait()
        self._changed.clear()

    async def version(self) -> str:
        """The engine's own version, asked for now. Raises Unavailable."""
        if not self.enabled:
            raise Unavailable("Docker is disabled in the configuration")
        return await self._api.read(_APP, "ask for the version", lambda client: str(client.version()["Version"]), timeout=ANSWER_SECONDS)
