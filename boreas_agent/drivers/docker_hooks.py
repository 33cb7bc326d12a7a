"""Commands in a container of their own: made for one run, and gone after it, however it went.

The container has one name for each revision, so that a hook that is run again finds what a dead agent has left of the last one.
What nobody comes to run again is swept away when everything is looked at; so is what could not be removed before.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from boreas_agent.drivers.docker_api import DockerApi, Refused
from boreas_agent.drivers.docker_exec import TAIL_BYTES
from boreas_agent.drivers.docker_spec import is_hook
from boreas_agent.drivers.docker_streams import Streams
from boreas_agent.errors import BoreasError, Terminal, Transient
from boreas_agent.model import Executed

log = logging.getLogger(__name__)

_TAIL_LINES = 100
Remove = Callable[[str, str], Coroutine[Any, Any, None]]


class Hooks:
    """Knows which containers are its own; every other one of its kind is a dead agent's."""

    def __init__(self, api: DockerApi, streams: Streams, identity: str, remove: Remove) -> None:
        self._api = api
        self._streams = streams
        self._identity = identity
        self._remove = remove
        self._names: set[str] = set()
        self._sweeping: dict[str, asyncio.Task[None]] = {}

    async def close(self) -> None:
        """Leave what is not swept yet to the next agent."""
        for task in self._sweeping.values():
            task.cancel()
        await asyncio.gather(*self._sweeping.values(), return_exceptions=True)

    async def run(self, app: str, name: str, body: Mapping[str, Any], seconds: float) -> Executed:
        """How the container made from ``body`` ended. Raises Transient, Terminal."""
        self._names.add(name)
        try:
            await self._make_room(app, name)
            try:
                return await self._run(app, name, body, seconds)
            finally:
                await self._tidy_up(app, name)
        finally:
            self._names.discard(name)

    async def _run(self, app: str, name: str, body: Mapping[str, Any], seconds: float) -> Executed:
        ref = str((await self._change(app, lambda client: client.create_container_from_config(body, name)))["Id"])
        try:
            await self._change(app, lambda client: client.start(ref))
        except Refused as error:
            if error.status == 400:  # a program that is not there, for example
                return Executed(None, problem=f"cannot execute the command: {error.explanation}")
            raise
        in_time = await self._streams.wait(ref, f"wait for a hook of {app}", seconds)
        return await self._result(app, ref, seconds, in_time=in_time)

    async def _make_room(self, app: str, name: str) -> None:
        """Looks at what has the name every time: the answer to a create may have been lost, and what is not ours stays."""
        try:
            found = await self._api.read(app, f"run a hook of {app}", lambda client: client.inspect_container(name))
        except Refused as error:
            if error.status == 404:
                return
            raise
        if not is_hook(found["Config"].get("Labels"), name, self._identity):
            raise Terminal(f"cannot run a hook of {app}: the name {name} is taken by a container that is not ours; rename or remove it")
        await self._remove(app, str(found["Id"]))

    async def _tidy_up(self, app: str, name: str) -> None:
        try:
            await self._make_room(app, name)
        except BoreasError as error:
            log.warning("a hook's container is not removed yet", extra={"app": app, "container": name, "error": str(error)})

    async def _change(self, app: str, call: Callable[[Any], Any]) -> Any:
        return await self._api.change(app, f"run a hook of {app}", call)

    async def _result(self, app: str, ref: str, seconds: float, *, in_time: bool) -> Executed:
        what, output = f"look at a hook of {app}", b""
        with suppress(Refused):  # a log driver that cannot be read
            output = await self._api.read(app, what, lambda client: client.logs(ref, tail=_TAIL_LINES))
        said = output[-TAIL_BYTES:].decode("utf-8", "replace")
        if not in_time:
            return Executed(None, said, f"the command did not end within {seconds:g} s")
        state = (await self._api.read(app, what, lambda client: client.inspect_container(ref)))["State"]
        return Executed(int(state["ExitCode"]), said)

    def sweep(self, found: Mapping[str, str]) -> None:
        """Remove, in the background, those of ``found`` (names by id) that no hook of this agent runs in."""
        for ref, name in found.items():
            if name not in self._names and ref not in self._sweeping:
                task = self._sweeping[ref] = asyncio.get_running_loop().create_task(self._sweep(ref, name))
                task.add_done_callback(partial(self._swept, ref))

    def _swept(self, ref: str, _task: asyncio.Task[None]) -> None:
        self._sweeping.pop(ref, None)

    async def _sweep(self, ref: str, name: str) -> None:
        try:
            await self._remove(":hooks", ref)
            log.info("removed what an earlier agent left of a hook", extra={"container": name})
        except Transient as error:
            log.warning("a hook's container is not removed yet", extra={"container": name, "error": str(error)})
