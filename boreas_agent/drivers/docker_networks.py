"""Networks that containers are in: those that are to be made are made, and removed when nobody uses them any more.

A network that is ours carries our label; one of its name that somebody else made is joined and left alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Any

from boreas_agent.drivers.docker_api import Client, DockerApi, Refused
from boreas_agent.drivers.docker_spec import AGENT, endpoint
from boreas_agent.errors import Missing
from boreas_agent.spec import Network

log = logging.getLogger(__name__)

_NOT_FOUND = 404


class Networks:
    """The networks of one engine."""

    def __init__(self, api: DockerApi, identity: str) -> None:
        self._api = api
        self._identity = identity

    async def missing(self, app: str, wanted: Sequence[Network]) -> Sequence[Network]:
        """Those of ``wanted`` that the engine does not have. Raises Unavailable."""
        if not wanted:
            return ()
        there = {network["Name"] for network in await self._api.read(app, f"list the networks of {app}", lambda client: client.networks())}
        return [network for network in wanted if network.name not in there]

    async def ensure(self, app: str, wanted: Sequence[Network]) -> None:
        """Make what is to be made. Raises Missing where there is no such network and nobody wants it made."""
        for network in await self.missing(app, wanted):
            if not network.create:
                way_out = f'make it with "docker network create {network.name}", or let the agent do so with create: true'
                raise Missing(f"cannot start {app}: there is no network {network.name}; {way_out}")
            await self._create(app, network.name)

    async def _create(self, app: str, name: str) -> None:
        labels = {AGENT: self._identity}
        try:
            await self._api.change(
                app, f"create the network {name}", lambda client: client.create_network(name, labels=labels, check_duplicate=True)
            )
        except Refused as error:
            if error.status != 409:  # somebody was quicker
                raise

    async def join(self, app: str, ref: str, wanted: Sequence[Network], found: Mapping[str, Any]) -> None:
        """Put the container into those of ``wanted`` that it is not in; ``found`` are those that it is in."""
        for network in wanted:
            if network.name not in found:
                await self._join(app, ref, network)

    async def _join(self, app: str, ref: str, network: Network) -> None:
        name, config = network.name, {"aliases": endpoint(app, network).get("Aliases")}
        try:
            await self._api.change(
                app, f"join {app} to the network {name}", lambda client: client.connect_container_to_network(ref, name, **config)
            )
        except Refused as error:
            if error.status != 403 or "already exists" not in error.explanation:
                raise

    async def prune(self, app: str, wanted: Iterable[Network]) -> None:
        """Remove those of ``wanted`` that we made and that no container is in, running or not."""
        names = {network.name for network in wanted if network.create}
        if names:
            await self._prune(app, f"remove the networks of {app}", lambda name: name in names)

    async def sweep(self, wanted: Container[str]) -> None:
        """Remove those that we made and that nobody is in, but for the ``wanted``."""
        await self._prune("", "remove networks that nobody uses", lambda name: name not in wanted)

    async def _prune(self, app: str, what: str, doomed: Callable[[str], bool]) -> None:
        await self._api.change(app, what, lambda client: self._remove_unused(client, doomed))

    def _remove_unused(self, client: Client, doomed: Callable[[str], bool]) -> None:
        from docker.errors import APIError  # noqa: PLC0415  # 15 MB that an agent without Docker does without

        for network in client.networks(filters={"label": [f"{AGENT}={self._identity}"]}):
            if doomed(network["Name"]) and not client.containers(all=True, quiet=True, filters={"network": [network["Id"]]}):
                try:
                    client.remove_network(network["Id"])
                except APIError as error:  # in use after all, or gone: it must not keep the others
                    if error.status_code != _NOT_FOUND:
                        log.warning("a network is not removed yet", extra={"network": network["Name"], "error": str(error.explanation)})
