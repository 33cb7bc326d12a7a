"""The images on the node as a whole: which the agent has brought here, which are used, and how to be rid of one.

Only an image that was not here before is the agent's; one that somebody has given another name since is theirs as well, and stays.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TypeVar

from boreas_agent.aside import Aside
from boreas_agent.drivers.docker_api import Client, DockerApi, Refused
from boreas_agent.drivers.docker_images import Images, Pulled
from boreas_agent.errors import Unavailable

T = TypeVar("T")
_APP = ":images"
"""No app has this name: nothing that hangs for an app takes these questions' place."""
_DISK_SECONDS = 10.0


class Shelf:
    """The images of one engine."""

    def __init__(self, api: DockerApi, images: Images, *, enabled: bool) -> None:
        self._api = api
        self._images = images
        self._aside = Aside("image-disk")
        self.enabled = enabled

    async def pulled(self) -> Sequence[Pulled]:
        """Returns when images were pulled: all of them since the last time."""
        found = [await self._images.pulled.get()]
        while not self._images.pulled.empty():
            found.append(self._images.pulled.get_nowait())
        return found

    async def used(self, names: Iterable[str]) -> frozenset[str]:
        """The ids of the images that any container is made of, and of those that are called by one of ``names``. Raises Unavailable."""
        containers = await self._read("list the containers", lambda client: client.containers(all=True))
        named = await asyncio.gather(*(self._images.identify(_APP, name) for name in names))
        return frozenset([str(one["ImageID"]) for one in containers] + [one for one in named if one])

    async def here(self) -> frozenset[str]:
        """The ids of all images. Raises Unavailable."""
        return frozenset(await self._read("list the images", lambda client: client.images(quiet=True, all=True)))

    async def remove(self, image: str, names: Collection[str]) -> bool:
        """Remove the image, unless it has a name that is none of ``names``, or is in use; whether it is gone. Raises Transient."""
        try:
            removed = await self._api.change(_APP, f"remove image {image}", lambda client: _remove(client, image, names))
        except Refused as error:
            if error.status not in (404, 409):  # gone; in use after all
                raise
            removed = error.status == 404
        self._images.forget()
        return removed

    async def percent_used(self) -> float:
        """How full the disk of the engine's images is. Raises Unavailable where that cannot be seen from here."""
        folder = str(await self._read("ask for the engine's folder", lambda client: client.info().get("DockerRootDir") or ""))
        try:
            found = await self._aside.run(lambda: os.statvfs(folder), _DISK_SECONDS)
        except OSError as error:  # a TimeoutError is one
            raise Unavailable(f"cannot look at the engine's folder {folder}: {error}") from error
        return 100.0 - 100.0 * found.f_bavail / found.f_blocks if found.f_blocks else 0.0

    async def _read(self, what: str, call: Callable[[Client], T]) -> T:
        try:
            return await self._api.read(_APP, what, call)
        except Refused as error:
            raise Unavailable(str(error)) from error


def _remove(client: Client, image: str, names: Collection[str]) -> bool:
    """By its names, for the engine removes no image by its id that has several; the last one takes the image along."""
    tags = client.inspect_image(image).get("RepoTags") or ()
    if set(tags) - set(names):
        return False
    for name in tags or (image,):
        client.remove_image(name)
    return True
