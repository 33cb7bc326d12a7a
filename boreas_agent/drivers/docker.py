"""Containers. Everything the engine knows is asked for, nothing about containers is remembered across restarts.

A container of ours carries labels (``docker_spec``) with the node's identity, its name and its whole revision
record; a container without that identity is never touched. Its name is derived, so the engine itself refuses
to create an instance twice. The engine's restart policy is off: the agent restarts, and knows why.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from boreas_agent.clock import Clock
from boreas_agent.drivers.base import ALL_APPS
from boreas_agent.drivers.docker_api import DockerApi, Refused
from boreas_agent.drivers.docker_engine import EngineLink
from boreas_agent.drivers.docker_exec import Commands
from boreas_agent.drivers.docker_images import Images
from boreas_agent.drivers.docker_own import own_container, stays_away
from boreas_agent.drivers.docker_ports import taken_port
from boreas_agent.drivers.docker_sight import Sight
from boreas_agent.drivers.docker_spec import AGENT, APP, Node, container_name, create_body, image_reference, read_card
from boreas_agent.drivers.docker_state import KIND
from boreas_agent.drivers.docker_streams import Streams
from boreas_agent.errors import Terminal, Transient, Unavailable
from boreas_agent.model import Executed, Exit, Instance, Observed
from boreas_agent.spec import DockerPkg

log = logging.getLogger(__name__)

_AFTER_SIGKILL = 15.0  # seconds the kernel and the engine get to end what cannot refuse
_NAME_TRIES = 3
_RECONNECT_FIRST, _RECONNECT_MOST = 0.05, 1.0
_ACTIONS = ("create", "start", "die", "stop", "kill", "oom", "pause", "unpause", "rename", "destroy", "health_status")
_NEEDS_BOUND = "json-file"
"""The engine's usual log driver keeps everything for ever; any other that an operator chose is left alone."""


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
        timeout: float = 15.0,
        stall: float = 60.0,
    ) -> None:
        """``timeout``: seconds a short call may take; ``stall``: seconds a pull may go without progress."""
        self._node = Node(identity, registry, network_mode)
        self._clock = clock
        self._enabled = enabled
        self._api = DockerApi(socket_path, timeout=timeout)
        self._streams = Streams(self._api, stall=stall)
        self._commands = Commands(self._streams)
        self._images = Images(self._api, self._streams, clock)
        self._own = ""
        self._sight = Sight(self._api, identity, clock)
        self._log_driver: str | None = None
        self.link = EngineLink(self._api, enabled=enabled)
        """How the engine itself is."""

    async def open(self) -> None:
        """Connects nothing yet: the first call does."""
        self._own = self._sight.own = await asyncio.to_thread(own_container)
        if self._enabled:
            await self._streams.open()

    async def close(self) -> None:
        """Give up pulls, end streams; containers go on."""
        await self._images.close()
        await self._streams.close()
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
        return await self._sight.all()

    # --- doing -----------------------------------------------------------------------------------

    async def prepared(self, want: Instance) -> bool:
        """Whether the image is here."""
        self._check_enabled()
        return await self._images.present(want.name.app, self._reference(want))

    async def prepare(self, want: Instance) -> None:
        """Pull the image where it is missing."""
        if not await self.prepared(want):
            await self._images.pull(want.name.app, self._reference(want))

    async def start(self, want: Instance, after: int) -> None:
        """Create the container, or adopt the one that has its name and is right; then start it.

        ``after`` says nothing here: the engine does not count starts.
        """
        self._check_enabled()
        name = container_name(want.name, self._node.identity)
        for _ in range(_NAME_TRIES):
            found = await self._sight.inspect(want.name.app, name, f"start {want.name.app}")
            if found is None:
                ref = await self._create(want, name)
            else:
                ref = await self._adopt(want, found)
            if ref is not None:
                return await self._run(want, ref)
        raise Transient(f"cannot start {want.name.app}: the container name {name} does not become free")

    async def _create(self, want: Instance, name: str) -> str | None:
        """The new container's id; None where the name was taken meanwhile."""
        app, reference = want.name.app, self._reference(want)
        body = create_body(
            want,
            _docker_pkg(want),
            self._node,
            bounded_log=await self._default_log_driver(app) == _NEEDS_BOUND,
        )
        try:
            created = await self._api.change(app, f"create {app}", lambda client: client.create_container_from_config(body, name))
        except Refused as error:
            if error.status == 409:
                return None
            if error.status == 404:
                self._images.doubt(reference)
                raise Transient(f"cannot start {app}: image {reference} is not here any more") from error
            raise (Terminal if error.status == 400 else Transient)(str(error)) from error
        return str(created["Id"])

    async def _adopt(self, want: Instance, found: Mapping[str, Any]) -> str | None:
        """The id of the container that has the name, where it is ours and right; None where it was moved out of the way."""
        app, ref = want.name.app, str(found["Id"])
        card = read_card(found["Config"].get("Labels"), self._node.identity)
        if card is None or ref == self._own:
            holder = str(found["Name"]).lstrip("/")
            raise Terminal(
                f"cannot create {app}: the name {holder} is taken by a container that is not ours ({ref[:12]}); rename or remove it"
            )
        if card.name != want.name:
            own = container_name(card.name, self._node.identity)
            await self._api.change(app, f"give {card.name} its name back", lambda client: client.rename(ref, own))
            return None
        state = found["State"]["Status"]
        if card.hash != want.hash or state in ("dead", "removing"):
            await self._remove(app, ref)
            return None
        if state == "paused":
            await self._unpause(app, ref)
        return ref

    async def _run(self, want: Instance, ref: str) -> None:
        app = want.name.app
        self._sight.doubt(app, ref)
        try:
            await self._api.change(app, f"start {app}", lambda client: client.start(ref))
        except Refused as error:
            ports = _docker_pkg(want).ports
            taken = await self._api.read(app, f"start {app}", lambda client: taken_port(client, ports, ref)) if ports else None
            raise Transient(f"cannot start {app}: {taken or error.explanation}") from error

    async def stop(self, seen: Observed, signal: str, grace_seconds: float) -> Exit | None:
        """Signal, grace, SIGKILL. A paused container is unpaused once the signal waits for it."""
        self._check_enabled()
        app = seen.name.app
        found = await self._sight.inspect(app, seen.ref, f"stop {seen.name}")
        if found is not None and found["State"]["Running"]:
            if grace_seconds > 0:
                await self._kill(seen, signal)
                if found["State"]["Paused"]:
                    await self._unpause(app, seen.ref)
            if grace_seconds <= 0 or not await self._ended(seen, grace_seconds):
                await self._kill(seen, "SIGKILL")
                if not await self._ended(seen, _AFTER_SIGKILL):
                    raise Transient(f"cannot stop {seen.name}: it still runs {_AFTER_SIGKILL:g} s after SIGKILL")
        return await self._sight.exit(seen)

    async def _kill(self, seen: Observed, signal: str) -> None:
        try:
            await self._api.change(seen.name.app, f"stop {seen.name}", lambda client: client.kill(seen.ref, signal))
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

    async def remove(self, seen: Observed) -> None:
        """Remove the container and its anonymous volumes."""
        self._check_enabled()
        await self._remove(seen.name.app, seen.ref)

    async def _remove(self, app: str, ref: str) -> None:
        try:
            await self._api.change(app, f"remove {app}", lambda client: client.remove_container(ref, v=True, force=True))
        except Refused as error:
            if error.status not in (404, 409):  # gone, or going
                raise

    async def resume(self, seen: Observed) -> None:
        """Unpause."""
        self._check_enabled()
        await self._unpause(seen.name.app, seen.ref)

    async def _unpause(self, app: str, ref: str) -> None:
        self._sight.doubt(app, ref)
        try:
            await self._api.change(app, f"resume {app}", lambda client: client.unpause(ref))
        except Refused:
            found = await self._sight.inspect(app, ref, f"resume {app}")
            if found is not None and found["State"]["Paused"]:
                raise

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

    async def execute(self, seen: Observed, command: Sequence[str], seconds: float) -> Executed:
        """As the engine's ``exec`` does it, with the container's user, environment and working directory."""
        self._check_enabled()
        return await self._commands.run(seen, command, seconds)

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
                        self.link.mark(listening=True)
                        yield self._heard(message)
            except Transient as error:
                log.debug("no event stream from the engine", extra={"error": str(error)})
            self.link.mark(listening=False)
            self._api.forget()
            self._log_driver = None
            if connected:
                log.warning("the engine's event stream ended; connecting again")
                yield ALL_APPS
            await asyncio.sleep(pause)
            pause = min(pause * 2, _RECONNECT_MOST)

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

    def _reference(self, want: Instance) -> str:
        return image_reference(_docker_pkg(want).image, self._node.registry)

    async def _default_log_driver(self, app: str) -> str:
        if self._log_driver is None:
            self._log_driver = str(await self._api.read(app, f"create {app}", lambda client: client.info().get("LoggingDriver")))
        return self._log_driver


def _docker_pkg(want: Instance) -> DockerPkg:
    if not isinstance(want.pkg, DockerPkg):
        raise Terminal(f"cannot start {want.name.app}: it is of type {want.pkg.type}, not docker")
    return want.pkg
