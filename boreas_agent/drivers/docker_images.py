"""Images: which are here, and pulls that several apps may share.

An app that gives up leaves a shared pull to the others; the last one to leave cancels it. An instance that is to run what ran
before gets these very bytes, whatever the tag names by now: from this node, or from the registry by their digest.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from typing import Any

from msgspec import Struct

from boreas_agent.clock import Clock
from boreas_agent.drivers.docker_api import DockerApi, Refused
from boreas_agent.drivers.docker_auth import Auth
from boreas_agent.drivers.docker_progress import Progress
from boreas_agent.drivers.docker_spec import image_reference, pull_query, registry_of
from boreas_agent.drivers.docker_streams import Streams
from boreas_agent.errors import Missing, Terminal, Transient, Unavailable
from boreas_agent.model import Instance
from boreas_agent.spec import DockerPkg

_BELIEVED = 3.0
"""Seconds for which 'the image is here' is believed without asking again: a burst of replicas asks once."""
_MOST_BELIEVED = 1000
_KEPT_OUT = re.compile(r"unauthorized|no basic auth credentials|denied|authentication required", re.IGNORECASE)


class Pulled(Struct, frozen=True):
    """An image that was pulled; ``new``: it was not here before, by whatever name."""

    id: str
    name: str
    new: bool


@dataclass(slots=True)
class _Pull:
    task: asyncio.Task[None]
    progress: Progress
    apps: list[str] = field(default_factory=list)


class Images:
    """The images of one engine. ``registry`` is where those come from that name none."""

    def __init__(self, api: DockerApi, streams: Streams, clock: Clock, auth: Auth, registry: str = "") -> None:
        self._api = api
        self._streams = streams
        self._clock = clock
        self._auth = auth
        self._registry = registry
        self._present: dict[str, float] = {}
        self._pulls: dict[str, _Pull] = {}
        self.pulled: asyncio.Queue[Pulled] = asyncio.Queue()
        """What was pulled, for whoever keeps a record of it."""

    # --- for an instance ---------------------------------------------------------------------------

    def reference(self, want: Instance) -> str:
        """The image as the engine is asked for it."""
        return image_reference(docker_pkg(want).image, self._registry)

    async def ready(self, want: Instance) -> bool:
        """Whether there is nothing to fetch for it. Raises Unavailable, Terminal."""
        app = want.name.app
        if want.image:
            if await self.present(app, want.image):
                return True
            if want.digest:
                return await self.present(app, want.digest)
        return docker_pkg(want).pull_policy != "always" and await self.present(app, self.reference(want))

    async def fetch(self, want: Instance) -> None:
        """Make sure that it can be created. Raises Transient, Missing, Terminal (malformed)."""
        app, policy, reference = want.name.app, docker_pkg(want).pull_policy, self.reference(want)
        exact = want.digest if want.image else ""
        if await self.ready(want):
            return
        if policy == "never":
            raise Missing(f"cannot start {app}: image {exact or reference} is not here, and pull_policy is never; load it, or allow pulls")
        try:
            await self.pull(app, exact or reference)
        except Missing as error:
            if not exact:
                raise
            raise Missing(f'{error}; it is what {app} ran; to run what {reference} is now, apply it with "force": true') from error

    async def source(self, want: Instance) -> str:
        """What its container is to be created from: by name where that is the image which is meant, else by the image's own id."""
        app, reference = want.name.app, self.reference(want)
        if not want.image:
            return reference
        if await self.present(app, want.image):
            named = await self._inspect(app, reference)
            return reference if named is not None and named["Id"] == want.image else want.image
        return want.digest if want.digest and await self.present(app, want.digest) else reference

    # --- for everybody -----------------------------------------------------------------------------

    async def present(self, app: str, reference: str) -> bool:
        """Whether the image is on this node. Raises Unavailable, and Terminal where the reference is malformed."""
        now = self._clock.boottime()
        if now - self._present.get(reference, -_BELIEVED) < _BELIEVED:
            return True
        if await self._inspect(app, reference) is None:
            return False
        if len(self._present) >= _MOST_BELIEVED:
            self._present.clear()
        self._present[reference] = now
        return True

    async def _inspect(self, app: str, reference: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = await self._api.read(app, f"look for image {reference}", lambda client: client.inspect_image(reference))
        except Refused as error:
            if error.status == 404:
                return None
            raise (Terminal if error.status == 400 else Transient)(str(error)) from error
        return found

    async def identify(self, app: str, image: str) -> str:
        """The id of what a spec calls ``image``; empty where there is no such image here. Raises Unavailable, Transient, Terminal."""
        found = await self._inspect(app, image_reference(image, self._registry))
        return "" if found is None else str(found["Id"])

    def forget(self) -> None:
        """Images were removed: ask again which are here."""
        self._present.clear()

    def doubt(self, want: Instance) -> None:
        """The engine says that it has no such image after all."""
        for reference in (self.reference(want), want.image, want.digest):
            self._present.pop(reference, None)

    def progress(self, app: str) -> str:
        """How far the pull for the app is; empty where nobody knows."""
        said = ((reference, str(pull.progress)) for reference, pull in self._pulls.items() if app in pull.apps)
        return next((f"fetching {reference}: {words}" for reference, words in said if words), "")

    async def pull(self, app: str, reference: str) -> None:
        """Fetch the image, together with whoever else is fetching it. Raises Transient, Missing, Terminal (malformed)."""
        pull = self._pulls.get(reference)
        if pull is None:
            progress = Progress()
            pull = self._pulls[reference] = _Pull(asyncio.create_task(self._pull(app, reference, progress)), progress)
        pull.apps.append(app)
        try:
            await asyncio.shield(pull.task)
        finally:
            pull.apps.remove(app)
            if not pull.apps:
                pull.task.cancel()
                if self._pulls.get(reference) is pull:
                    del self._pulls[reference]

    async def close(self) -> None:
        """Give every pull up."""
        tasks = [pull.task for pull in self._pulls.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _pull(self, app: str, reference: str, progress: Progress) -> None:
        what, registry = f"pull {reference}", registry_of(reference)
        try:
            credentials = await self._auth.header(app, registry)
        except Transient as error:
            raise Transient(f"cannot {what}: {error}") from error
        before = await self._api.read(app, what, lambda client: frozenset(client.images(quiet=True, all=True)))
        try:
            await self._streams.pull(pull_query(reference), credentials, what, progress.hear)
        except Unavailable:
            raise
        except Transient as error:
            raise self._explained(error, registry) from error
        found = await self._inspect(app, reference)
        if found is None:
            raise Transient(f"cannot {what}: the engine reported success but does not have the image")
        self.pulled.put_nowait(Pulled(str(found["Id"]), reference, new=found["Id"] not in before))

    def _explained(self, error: Transient, registry: str) -> Terminal | Transient:
        """What it means, with where credentials come from where those may be what is missing."""
        status = error.status if isinstance(error, Refused) else 0
        hint = f" (credentials for {registry} are looked for in {self._auth.file})" if _KEPT_OUT.search(str(error)) else ""
        if status == 400:
            return Terminal(str(error))
        kind = Missing if status == 404 or isinstance(error, Missing) else Transient
        return kind(f"{error}{hint}")


def docker_pkg(want: Instance) -> DockerPkg:
    """What it is made from. Raises Terminal where that is no container."""
    if not isinstance(want.pkg, DockerPkg):
        raise Terminal(f"cannot start {want.name.app}: it is of type {want.pkg.type}, not docker")
    return want.pkg
