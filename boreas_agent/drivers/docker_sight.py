"""What runs, as the engine tells it: one list call, and an inspect for each container that has changed since.

A container whose inspect hangs (it happens: the engine holds a lock per container) makes only its own app unknown.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from boreas_agent.clock import Clock
from boreas_agent.drivers.docker_api import Client, DockerApi, Refused
from boreas_agent.drivers.docker_files import Files
from boreas_agent.drivers.docker_spec import AGENT, APP, Card, is_hook, read_card
from boreas_agent.drivers.docker_state import Facts, Now, digest_of, facts, observed
from boreas_agent.errors import Unavailable
from boreas_agent.model import Exit, Observed

_PATIENCE = 3.0  # seconds one app may hold up a look at all of them
_MOST_IMAGES = 1000


class _Image(Struct, frozen=True):
    """What is known of an image: whether it carries the labels of one of our containers, and by which digests registries have it."""

    labelled: bool = False
    digests: tuple[str, ...] = ()


_Listed: TypeAlias = tuple[Card, Mapping[str, Any]]


class Sight:
    """Remembers what inspects told, for as long as the list says the same of a container."""

    def __init__(self, api: DockerApi, identity: str, clock: Clock, files: Files) -> None:
        self._api = api
        self._files = files
        self.own = ""
        """The container of the agent itself: whatever labels somebody gave it, it is nobody's instance."""
        self.hooks: Mapping[str, str] = {}
        """Containers of hooks in the last look at all apps: name by id."""
        self._identity = identity
        self._clock = clock
        self._images: dict[str, _Image] = {}
        self._known: dict[str, dict[str, Facts]] = {}  # app -> container id -> what its last inspect told

    async def one(self, app: str) -> Sequence[Observed]:
        """The containers of one app. Raises Unavailable."""
        return await self._app(await self.listed(app))

    async def all(self) -> Mapping[str, Sequence[Observed] | None]:
        """The containers of all apps; None for an app of which the engine does not say enough in time. Raises Unavailable."""
        cards = await self._list(None, [f"{AGENT}={self._identity}"], "list the containers")
        return dict(zip(cards, await asyncio.gather(*map(self._app_in_time, cards.values())), strict=True))

    async def listed(self, app: str) -> Sequence[tuple[Card, Mapping[str, Any]]]:
        """The containers of one app as the engine lists them. Raises Unavailable."""
        return (await self._list(app, [f"{AGENT}={self._identity}", f"{APP}={app}"], f"list the containers of {app}")).get(app, ())

    def pids(self) -> dict[str, list[int]]:
        """The main processes of what was last seen running, by app."""
        known = {app: [one.running.pid for one in some.values() if one.running and one.exit is None] for app, some in self._known.items()}
        return {app: [pid for pid in pids if pid] for app, pids in known.items()}

    async def inspect(self, app: str, ref: str, what: str) -> dict[str, Any] | None:
        """What the engine says about one container; None where there is no such. Raises Refused, Unavailable."""
        try:
            found: dict[str, Any] = await self._api.read(app, what, lambda client: client.inspect_container(ref))
        except Refused as error:
            if error.status == 404:
                return None
            raise
        return found

    async def exit(self, seen: Observed) -> Exit | None:
        """How the last run of a container that no longer runs ended; None where it is gone or never ran."""
        found = await self.inspect(seen.name.app, seen.ref, f"stop {seen.name}")
        if found is None:
            return None
        known = self._known.setdefault(seen.name.app, {})
        known[seen.ref] = facts(("", ""), found, self._now(), None, known.get(seen.ref))
        return known[seen.ref].exit

    def doubt(self, app: str, ref: str) -> None:
        """Something happened to the container: ask again, but remember when its run began."""
        known = self._known.get(app, {})
        if ref in known:
            known[ref] = replace(known[ref], seen=("", ""))

    async def _list(self, app: str | None, labels: list[str], what: str) -> dict[str, list[_Listed]]:
        """Our containers in the engine's list, by app."""
        try:
            summaries = await self._api.read(app or "", what, lambda client: client.containers(all=True, filters={"label": labels}))
        except Refused as error:
            raise Unavailable(str(error)) from error
        if app is None:
            named = [(one, _name(one)) for one in summaries]
            self.hooks = {one["Id"]: name for one, name in named if is_hook(one.get("Labels"), name, self._identity)}
        others = [summary for summary in summaries if summary["Id"] != self.own]
        ours = [(card, summary) for summary in others if (card := read_card(summary.get("Labels"), self._identity))]
        self._forget_gone(app, {summary["Id"] for _, summary in ours})
        grouped: dict[str, list[_Listed]] = {}
        for card, summary in ours:
            grouped.setdefault(card.name.app, []).append((card, summary))
        return grouped

    async def _app(self, listed: Sequence[_Listed]) -> Sequence[Observed]:
        seen = await asyncio.gather(*(self._observed(card, summary) for card, summary in listed))
        return tuple(sorted((one for one in seen if one is not None), key=_rightly_named_first))

    async def _app_in_time(self, listed: Sequence[_Listed]) -> Sequence[Observed] | None:
        try:
            async with asyncio.timeout(_PATIENCE):
                return await self._app(listed)
        except (Unavailable, TimeoutError):
            return None

    async def _observed(self, card: Card, summary: Mapping[str, Any]) -> Observed | None:
        """One container; None where it is gone meanwhile."""
        try:
            known = await self._facts(card, summary)
        except Refused as error:
            if error.status == 404:
                return None
            raise Unavailable(str(error)) from error
        seen = observed(card, summary, known, self._identity)
        if now := await self._files.became(card.name, card.record, seen.ref):
            since = now.at if now.boot == self._clock.boot_id and (seen.started is None or now.at >= seen.started) else None
            seen = replace(seen, hash=now.hash, record=now.record, carries=now.revision, reloaded=since)
        try:
            image = await self._image(card, summary["ImageID"])
        except Unavailable:
            if seen.misnamed:
                raise
            return seen  # an image store that hangs hides no container
        if seen.misnamed and image.labelled:
            return None  # the labels came with an image that somebody committed out of a container of ours: then it is theirs
        return replace(seen, digest=digest_of(str(summary.get("Image") or ""), image.digests))

    async def _image(self, card: Card, image: str) -> _Image:
        if image not in self._images:
            try:
                found = await self._api.read(
                    card.name.app, f"look for image {image}", lambda client: client.inspect_image(image), timeout=_PATIENCE / 2
                )
            except Refused as error:
                if error.status != 404:
                    raise Unavailable(str(error)) from error
                return _Image()  # it is gone: nobody can make another container from it
            if len(self._images) >= _MOST_IMAGES:
                self._images.clear()
            labelled = AGENT in ((found.get("Config") or {}).get("Labels") or {})
            self._images[image] = _Image(labelled, tuple(found.get("RepoDigests") or ()))
        return self._images[image]

    async def _facts(self, card: Card, summary: Mapping[str, Any]) -> Facts:
        """From memory where the list still says the same of the container, else from an inspect."""
        ref, seen = summary["Id"], (summary["State"], summary.get("Status", ""))
        before = self._known.get(card.name.app, {}).get(ref)
        if before is not None and before.seen == seen:
            return before
        found, started = await self._api.read(card.name.app, f"inspect {card.name}", lambda client: _inspect_with_start(client, ref))
        known = facts(seen, found, self._now(), started, before)
        self._known.setdefault(card.name.app, {})[ref] = known
        return known

    def _forget_gone(self, app: str | None, refs: set[str]) -> None:
        for name in [app] if app is not None else list(self._known):
            left = {ref: known for ref, known in self._known.get(name, {}).items() if ref in refs}
            if left:
                self._known[name] = left
            else:
                self._known.pop(name, None)

    def _now(self) -> Now:
        return Now(self._clock.boottime(), self._clock.now())


def _name(summary: Mapping[str, Any]) -> str:
    return str((summary.get("Names") or ("",))[0]).lstrip("/")


def _rightly_named_first(one: Observed) -> tuple[int, int, bool, str]:
    """Two containers of one name: the one that has it is the instance, the other a duplicate."""
    return (one.name.revision, one.name.replica, one.misnamed, one.ref)


def _inspect_with_start(client: Client, ref: str) -> tuple[dict[str, Any], float | None]:
    found: dict[str, Any] = client.inspect_container(ref)
    return found, _began(int(found["State"].get("Pid") or 0), ref)


def _began(pid: int, ref: str, proc: Path = Path("/proc")) -> float | None:
    """When process ``pid`` began, in boot seconds; None where that pid is not the container's here (another pid namespace)."""
    try:
        if pid <= 0 or ref not in (proc / str(pid) / "cgroup").read_text(encoding="utf-8"):
            return None
        fields = (proc / str(pid) / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError):
        return None
