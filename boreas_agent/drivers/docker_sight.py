"""What runs, as the engine tells it: one list call, and an inspect for each container that has changed since.

A container whose inspect hangs (it happens: the engine holds a lock per container) makes only its own app unknown.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from boreas_agent.clock import Clock
from boreas_agent.drivers.docker_api import Client, DockerApi, Refused
from boreas_agent.drivers.docker_spec import AGENT, APP, Card, read_card
from boreas_agent.drivers.docker_state import Facts, Now, facts, observed
from boreas_agent.errors import Unavailable
from boreas_agent.model import Exit, Observed

_PATIENCE = 3.0  # seconds one app may hold up a look at all of them
_MOST_IMAGES = 1000
_Listed: TypeAlias = tuple[Card, Mapping[str, Any]]


class Sight:
    """Remembers what inspects told, for as long as the list says the same of a container."""

    def __init__(self, api: DockerApi, identity: str, clock: Clock) -> None:
        self._api = api
        self.own = ""
        """The container of the agent itself: whatever labels somebody gave it, it is nobody's instance."""
        self._identity = identity
        self._clock = clock
        self._labelled: dict[str, bool] = {}  # image id -> whether it carries the labels of one of our containers
        self._known: dict[str, dict[str, Facts]] = {}  # app -> container id -> what its last inspect told

    async def one(self, app: str) -> Sequence[Observed]:
        """The containers of one app. Raises Unavailable."""
        cards = await self._list(app, [f"{AGENT}={self._identity}", f"{APP}={app}"], f"list the containers of {app}")
        return await self._app(cards.get(app, ()))

    async def all(self) -> Mapping[str, Sequence[Observed] | None]:
        """The containers of all apps; None for an app of which the engine does not say enough in time. Raises Unavailable."""
        cards = await self._list(None, [f"{AGENT}={self._identity}"], "list the containers")
        return dict(zip(cards, await asyncio.gather(*map(self._app_in_time, cards.values())), strict=True))

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
        except Refused:
            return None
        seen = observed(card, summary, known, self._identity)
        return None if seen.misnamed and await self._inherited(card, summary) else seen

    async def _inherited(self, card: Card, summary: Mapping[str, Any]) -> bool:
        """Whether the labels came with an image that somebody committed out of a container of ours: then it is theirs."""
        image = summary["ImageID"]
        if image not in self._labelled:
            try:
                found = await self._api.read(card.name.app, f"look for image {image}", lambda client: client.inspect_image(image))
            except Refused:
                return False  # the image is gone: nobody can make another container from it
            if len(self._labelled) >= _MOST_IMAGES:
                self._labelled.clear()
            self._labelled[image] = AGENT in ((found.get("Config") or {}).get("Labels") or {})
        return self._labelled[image]

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
