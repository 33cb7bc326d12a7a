"""Containers. Everything the engine knows is asked for, nothing about containers is remembered across restarts.

A container of ours carries labels (``docker_spec``) with the node's identity, its name and its whole revision
record; a container without that identity is never touched. Its name is derived, so the engine itself refuses
to create an instance twice. The engine's restart policy is off: the agent restarts, and knows why.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from contextlib import aclosing, suppress
from functools import partial
from pathlib import Path
from typing import Any

from boreas_agent.clock import Clock
from boreas_agent.drivers import docker_output
from boreas_agent.drivers.base import ALL_APPS
from boreas_agent.drivers.docker_api import DockerApi, Refused
from boreas_agent.drivers.docker_arrival import Arrival
from boreas_agent.drivers.docker_auth import Auth
from boreas_agent.drivers.docker_engine import EngineLink
from boreas_agent.drivers.docker_exec import Commands
from boreas_agent.drivers.docker_files import Became, Files
from boreas_agent.drivers.docker_hooks import Hooks
from boreas_agent.drivers.docker_images import Images
from boreas_agent.drivers.docker_networks import Networks
from boreas_agent.drivers.docker_own import own_container, stays_away
from boreas_agent.drivers.docker_shelf import Shelf
from boreas_agent.drivers.docker_sight import Sight
from boreas_agent.drivers.docker_spec import AGENT, APP, Node, container_name, hook_body, hook_name
from boreas_agent.drivers.docker_starting import Starting, networks_of, remove, unpause
from boreas_agent.drivers.docker_state import KIND
from boreas_agent.drivers.docker_streams import Streams
from boreas_agent.errors import Invalid, Terminal, Transient, Unavailable
from boreas_agent.model import Executed, Exit, Instance, Observed, OutputLine, OutputQuery
from boreas_agent.records import decode

log = logging.getLogger(__name__)

_AFTER_SIGKILL = 15.0  # seconds the kernel and the engine get to end what cannot refuse
_KILLED, _DIES_WITH_IT = 137, 1.0
"""A command that was killed was so because its container ends, if the engine says within so many seconds that it has."""
_RECONNECT_FIRST, _RECONNECT_MOST = 0.05, 2.0
_ACTIONS = ("create", "start", "die", "stop", "kill", "oom", "pause", "unpause", "rename", "destroy", "health_status")


class DockerDriver:
    """The driver for pkgs of type docker (see ``base.Driver``)."""

    kinds: frozenset[str] = frozenset({KIND})
    keeps_exits: bool = False

    def __init__(  # noqa: PLR0913  # the settings of section 'docker', and two bounds
        self,
        socket_path: str,
        identity: str,
        clock: Clock,
        *,
        enabled: bool = True,
        registry: str = "",
        network_mode: str = "bridge",
        auth_file: str = "",
        work_dir: Path = Path("/var/lib/boreas-agent"),
        timeout: float = 15.0,
        stall: float = 120.0,
    ) -> None:
        """``timeout``: seconds a short call may take; ``stall``: seconds a pull may go without progress.

        Files of apps are written below ``work_dir``.
        """
        self._node = Node(identity, network_mode)
        self._clock = clock
        self._enabled = enabled
        self._api = DockerApi(socket_path, timeout=timeout)
        self._streams = Streams(self._api, stall=stall)
        self._arrival = Arrival(socket_path)
        self._commands = Commands(self._streams, identity)
        self._hooks = Hooks(self._api, self._streams, identity, partial(remove, self._api))
        self._images = Images(self._api, self._streams, clock, Auth(auth_file), registry)
        self._own = ""
        self._files = Files(work_dir)
        self._sight = Sight(self._api, identity, clock, self._files)
        self._networks = Networks(self._api, identity)
        self._starting = Starting(self._api, self._sight, self._images, self._networks, files=self._files, node=self._node)
        self.shelf = Shelf(self._api, self._images, enabled=enabled)
        """Its images, as far as they concern all apps."""
        self.epoch = 0
        self.link = EngineLink(self._api, enabled=enabled)
        """How the engine itself is."""

    async def open(self) -> None:
        """Connects nothing yet: the first call does."""
        self._own = self._sight.own = await asyncio.to_thread(own_container)
        if self._enabled:
            await self._streams.open()
            await self._commands.end_strays()

    async def close(self) -> None:
        """Give up pulls, end streams; containers go on."""
        await self._images.close()
        await self._hooks.close()
        await self._streams.close()
        self._arrival.close()
        self._api.forget()

    async def stays_away(self) -> str:
        """Why the agent, in a container, would not come back after a reboot; empty where it would. Raises Unavailable."""
        return await stays_away(self._api, self._own) if self._own and self._enabled else ""

    # --- seeing ----------------------------------------------------------------------------------

    async def observe(self, app: str) -> Sequence[Observed]:
        """One list call, and an inspect for each container that has changed since the last look."""
        self._check_enabled()
        return await self._sight.one(app)

    async def observe_all(self) -> Mapping[str, Sequence[Observed] | None]:
        """The same for all apps; no container delays the look at another."""
        self._check_enabled()
        seen = await self._sight.all()
        self._hooks.sweep(self._sight.hooks)
        return seen

    async def output(self, app: str, query: OutputQuery) -> AsyncGenerator[Sequence[OutputLine], None]:
        """From the engine's own logs of the containers that there are. Raises Conflict where their log driver cannot be read."""
        self._check_enabled()

        async def found() -> Sequence[docker_output.Source]:
            return docker_output.sources(await self._sight.listed(app))

        async for batch in docker_output.Output(self._streams, app, query, found).lines():
            yield batch

    def pids(self) -> Mapping[str, Sequence[int]]:
        """The main processes of the containers that run, as far as they can be seen from here."""
        return self._sight.pids()

    # --- doing -----------------------------------------------------------------------------------

    async def prepared(self, want: Instance) -> bool:
        """Whether the image is here and need not be looked for, and the networks and files are."""
        self._check_enabled()
        if not await self._files.made(want):
            return False
        missing = await self._networks.missing(want.name.app, networks_of(want.pkg))
        return await self._images.ready(want) and all(network.create for network in missing)

    async def prepare(self, want: Instance) -> None:
        """Make sure of the networks and files, and pull the image where it is missing or its spec wants it looked for."""
        self._check_enabled()
        await self._files.make(want)
        await self._networks.ensure(want.name.app, networks_of(want.pkg))
        await self._images.fetch(want)

    def progress(self, app: str) -> str:
        """How much of the image is here."""
        return self._images.progress(app)

    async def start(self, want: Instance, after: int) -> None:
        """Create the container, or adopt the one that has its name and is right; then start it.

        ``after`` says nothing here: the engine does not count starts.
        """
        self._check_enabled()
        await self._starting.start(want)

    async def stop(self, seen: Observed, signal: str, grace_seconds: float) -> Exit | None:
        """Signal, grace, SIGKILL. A paused container is unpaused once the signal waits for it."""
        self._check_enabled()
        app = seen.name.app
        found = await self._sight.inspect(app, seen.ref, f"stop {seen.name}")
        if found is not None and found["State"]["Running"]:
            if grace_seconds > 0:
                await self._kill(seen, signal, f"stop {seen.name}")
                if found["State"]["Paused"]:
                    await unpause(self._api, self._sight, app, seen.ref)
            if grace_seconds <= 0 or not await self._ended(seen, grace_seconds):
                await self._kill(seen, "SIGKILL", f"stop {seen.name}")
                if not await self._ended(seen, _AFTER_SIGKILL):
                    raise Transient(f"cannot stop {seen.name}: it still runs {_AFTER_SIGKILL:g} s after SIGKILL")
        return await self._sight.exit(seen)

    async def _kill(self, seen: Observed, signal: str, what: str) -> None:
        try:
            await self._api.change(seen.name.app, what, lambda client: client.kill(seen.ref, signal))
        except Refused as error:
            if error.status not in (404, 409):  # gone, or not running: what was wanted
                raise

    async def _ended(self, seen: Observed, seconds: float) -> bool:
        try:
            return await self._streams.wait(seen.ref, f"stop {seen.name}", seconds)
        except Refused as error:
            if error.status == 404:
                return True
            raise

    async def reload(self, seen: Observed, want: Instance, signals: Sequence[str]) -> bool:
        """The mounted files are written to. Its labels cannot change, so what it is, before and after it, is noted beside them."""
        self._check_enabled()
        if await self._sight.inspect(seen.name.app, seen.ref, f"reload {seen.name}") is None:
            return False
        at, boot = self._clock.boottime(), self._clock.boot_id
        if seen.hash:
            await self._files.note(seen.name, Became(seen.ref, "", seen.record, seen.revision, at, boot))
        await self._files.make(want)
        await self._files.refresh(want, seen.name)
        for signal in signals:
            await self._kill(seen, signal, f"reload {seen.name}")
        at = self._clock.boottime()
        await self._files.note(seen.name, Became(seen.ref, want.hash, want.record, want.name.revision, at, boot))
        return True

    async def remove(self, seen: Observed) -> None:
        """Remove the container, its anonymous volumes, and networks that were made for it and that nobody else uses."""
        self._check_enabled()
        await remove(self._api, seen.name.app, seen.ref)
        with suppress(Invalid):
            await self._networks.prune(seen.name.app, networks_of(decode(seen.record).pkg))

    async def resume(self, seen: Observed) -> None:
        """Unpause."""
        self._check_enabled()
        await unpause(self._api, self._sight, seen.name.app, seen.ref)

    async def sweep_networks(self, wanted: Collection[str]) -> None:
        """Remove networks that were made for containers which never came to be; ``wanted``: names that apps have use for."""
        if self._enabled:
            await self._networks.sweep(wanted)

    async def rename(self, seen: Observed) -> None:
        """Give the container its derived name back."""
        self._check_enabled()
        app, name = seen.name.app, container_name(seen.name, self._node.identity)
        try:
            await self._api.change(app, f"rename {app} back to {name}", lambda client: client.rename(seen.ref, name))
        except Refused as error:
            found = await self._sight.inspect(app, name, f"rename {app}")
            if found is None or found["Id"] != seen.ref:
                raise Transient(str(error)) from error

    async def check(self, want: Instance, seconds: float) -> Executed:
        raise Terminal(f"cannot ask the check of {want.name}: only scripts have one")

    async def execute(self, seen: Observed, command: Sequence[str], seconds: float) -> Executed:
        """As the engine's ``exec`` does it, with the container's user, environment and working directory."""
        self._check_enabled()
        executed = await self._commands.run(seen, command, seconds)
        if executed.code == _KILLED and await self._ended(seen, _DIES_WITH_IT):
            raise Unavailable(f"cannot run a command beside {seen.name}: it has ended meanwhile")
        return executed

    async def run_once(self, want: Instance, command: Sequence[str], seconds: float) -> Executed:
        """In a container of its own, which is gone afterwards."""
        self._check_enabled()
        await self._files.make(want)
        body = hook_body(await self._starting.body(want), command)
        try:
            return await self._hooks.run(want.name.app, hook_name(want.name, self._node.identity), body, seconds)
        except Refused as error:
            if error.status == 404:
                self._images.doubt(want)  # deleted since it was prepared: pulled again by the next attempt
            raise

    async def collect(self, keep: Mapping[str, Collection[int]]) -> None:
        """Files that no container has; images are the engine's, and others may need them."""
        for app, revisions in (await self._files.spare(keep)).items():
            needed: set[int] = set()
            if keep[app]:
                self._check_enabled()
                needed = {card.name.revision for card, _ in await self._sight.listed(app)}
            await self._files.delete(app, {*revisions} - needed)

    # --- hearing ---------------------------------------------------------------------------------

    async def events(self) -> AsyncIterator[str]:
        """Whatever happens to a container of ours; everything may have happened while the engine was away."""
        if not self._enabled:
            await asyncio.Event().wait()
        filters = {"type": ["container"], "label": [f"{AGENT}={self._node.identity}"], "event": list(_ACTIONS)}
        pause = _RECONNECT_FIRST
        while True:
            connected = False
            try:
                async with aclosing(self._streams.events(filters, self._clock.now().timestamp() - 1)) as messages:
                    async for message in messages:
                        pause = _RECONNECT_FIRST if connected else pause  # the first message is only the greeting
                        connected = True
                        self._arrival.close()
                        self.link.mark(listening=True)
                        yield self._heard(message)
            except Transient as error:
                log.debug("no event stream from the engine", extra={"error": str(error)})
            self.link.mark(listening=False)
            self._api.forget()
            self._starting.forget()
            if connected:
                self.epoch += 1
                log.warning("the engine's event stream ended; connecting again")
                yield ALL_APPS
            pause = _RECONNECT_FIRST if await self._arrival.within(pause) else min(pause * 2, _RECONNECT_MOST)

    def _heard(self, message: Mapping[str, Any]) -> str:
        actor = message.get("Actor") or {}
        app = (actor.get("Attributes") or {}).get(APP)
        if not app:
            return ALL_APPS  # just connected
        self._sight.doubt(app, str(actor.get("ID", "")))
        return str(app)

    # --- small helpers ---------------------------------------------------------------------------

    def _check_enabled(self) -> None:
        if not self._enabled:
            raise Unavailable("Docker is disabled in the configuration")
