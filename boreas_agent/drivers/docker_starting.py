"""From a wanted instance to a running container: created, or adopted where its name is taken by one that is ours and right."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from boreas_agent.drivers import environment
from boreas_agent.drivers.docker_api import DockerApi, Refused
from boreas_agent.drivers.docker_files import Files
from boreas_agent.drivers.docker_images import Images, docker_pkg
from boreas_agent.drivers.docker_networks import Networks
from boreas_agent.drivers.docker_ports import taken_port
from boreas_agent.drivers.docker_sight import Sight
from boreas_agent.drivers.docker_spec import Node, container_name, create_body, read_card
from boreas_agent.errors import Terminal, Transient
from boreas_agent.model import Instance
from boreas_agent.spec import DockerPkg, Network, Pkg

_NAME_PAUSES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8)
"""A name is free a moment after its container has gone; so long, one after the other, it is waited for."""
_NO_SOURCE = "bind source path does not exist"
"""Somebody has deleted a file that is mounted, just now: the next start writes it anew."""
_NEEDS_BOUND = "json-file"
"""The engine's usual log driver keeps everything for ever; any other that an operator chose is left alone."""


class Starting:
    """Creates and starts the containers of one node."""

    def __init__(  # noqa: PLR0913  # all that a start needs
        self, api: DockerApi, sight: Sight, images: Images, networks: Networks, *, files: Files, node: Node
    ) -> None:
        self._api = api
        self._sight = sight
        self._images = images
        self._networks = networks
        self._files = files
        self._node = node
        self._log_driver: str | None = None

    def forget(self) -> None:
        """The engine was away and may come back with another configuration."""
        self._log_driver = None

    async def start(self, want: Instance) -> None:
        """See ``base.Driver.start``."""
        name = container_name(want.name, self._node.identity)
        await self._files.make(want)
        for pause in _NAME_PAUSES:
            found = await self._sight.inspect(want.name.app, name, f"start {want.name.app}")
            if found is None:
                ref = await self._create(want, name)
            else:
                ref = await self._adopt(want, found)
            if ref is not None:
                return await self._run(want, ref)
            await asyncio.sleep(pause)
        raise Transient(f"cannot start {want.name.app}: the container name {name} does not become free")

    async def _create(self, want: Instance, name: str) -> str | None:
        """The new container's id; None where the name was taken meanwhile."""
        app, pkg = want.name.app, docker_pkg(want)
        await self._networks.ensure(app, pkg.networks)
        body = await self.body(want)
        try:
            created = await self._api.change(app, f"create {app}", lambda client: client.create_container_from_config(body, name))
        except Refused as error:
            if error.status == 409:
                return None
            if error.status == 404 and "no such image" in error.explanation.lower():
                self._images.doubt(want)
                raise Transient(f"cannot start {app}: image {body['Image']} is not here any more") from error
            hopeless = error.status == 400 and _NO_SOURCE not in error.explanation
            raise (Terminal if hopeless else Transient)(str(error)) from error
        ref = str(created["Id"])
        await self._networks.join(app, ref, pkg.networks[1:], {})
        return ref

    async def body(self, want: Instance) -> dict[str, Any]:
        """What its container is created with. Raises Terminal where a file of its environment cannot be read."""
        app, pkg = want.name.app, docker_pkg(want)
        image = await self._images.source(want)
        bounded_log = await self._default_log_driver(app) == _NEEDS_BOUND
        read = await asyncio.to_thread(environment.read, pkg.environment_from, want.name) if pkg.environment_from else {}
        return create_body(want, pkg, self._node, image, bounded_log=bounded_log, read=read, files=self._files.folder(want))

    async def _adopt(self, want: Instance, found: Mapping[str, Any]) -> str | None:
        """The id of the container that has the name, where it is ours and right; None where it was moved out of the way."""
        app, ref = want.name.app, str(found["Id"])
        card = read_card(found["Config"].get("Labels"), self._node.identity)
        if card is None or ref == self._sight.own:
            holder = str(found["Name"]).lstrip("/")
            raise Terminal(
                f"cannot create {app}: the name {holder} is taken by a container that is not ours ({ref[:12]}); rename or remove it"
            )
        if card.name != want.name:
            own = container_name(card.name, self._node.identity)
            await self._api.change(app, f"give {card.name} its name back", lambda client: client.rename(ref, own))
            return None
        became = await self._files.became(card.name, card.record, ref)
        state = found["State"]["Status"]
        if (became.hash if became else card.hash) != want.hash or state in ("dead", "removing"):
            await remove(self._api, app, ref)
            return None
        if state == "paused":
            await unpause(self._api, self._sight, app, ref)
        # Whoever created it may have been cut short before it was in all of its networks.
        await self._networks.join(app, ref, networks_of(want.pkg), (found.get("NetworkSettings") or {}).get("Networks") or {})
        return ref

    async def _run(self, want: Instance, ref: str) -> None:
        app = want.name.app
        self._sight.doubt(app, ref)
        try:
            await self._api.change(app, f"start {app}", lambda client: client.start(ref))
        except Refused as error:
            if error.status == 400:  # a program that is not there, for example
                raise Terminal(f"cannot start {app}: {error.explanation}") from error
            if networks_of(want.pkg) and error.status == 404 and "network" in error.explanation:
                await remove(self._api, app, ref)  # its network was removed: another of that name is not the one it knows
                raise Transient(f"cannot start {app}: {error.explanation}; its container is made anew") from error
            ports = docker_pkg(want).ports
            taken = await self._api.read(app, f"start {app}", lambda client: taken_port(client, ports, ref)) if ports else None
            raise Transient(f"cannot start {app}: {taken or error.explanation}") from error

    async def _default_log_driver(self, app: str) -> str:
        if self._log_driver is None:
            self._log_driver = str(await self._api.read(app, f"create {app}", lambda client: client.info().get("LoggingDriver")))
        return self._log_driver


async def remove(api: DockerApi, app: str, ref: str) -> None:
    """Remove a container and its anonymous volumes."""
    try:
        await api.change(app, f"remove {app}", lambda client: client.remove_container(ref, v=True, force=True))
    except Refused as error:
        if error.status not in (404, 409):  # gone, or going
            raise


async def unpause(api: DockerApi, sight: Sight, app: str, ref: str) -> None:
    """Let a container go on; one that is not paused does."""
    sight.doubt(app, ref)
    try:
        await api.change(app, f"resume {app}", lambda client: client.unpause(ref))
    except Refused:
        found = await sight.inspect(app, ref, f"resume {app}")
        if found is not None and found["State"]["Paused"]:
            raise


def networks_of(pkg: Pkg) -> Sequence[Network]:
    """The networks that its containers are in."""
    return pkg.networks if isinstance(pkg, DockerPkg) else ()
