"""SIGHUP: the configuration is read again, and what can change without a restart does.

A configuration that is wrong changes nothing. What only a restart can change is named in the log, each time until it has
come: a setting that was edited and silently does nothing is found in an outage.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from msgspec import Struct
from pydantic import BaseModel

from boreas_agent.errors import StartupError
from boreas_agent.settings import Settings

log = logging.getLogger(__name__)

Apply = Callable[[Settings], None]
"""Brings a part of the running agent in line with the settings; raises StartupError where it can't, having changed nothing."""


class Reloaded(Struct, frozen=True):
    """What came of it: a sentence for people, the keys that took effect, and those that wait for a restart."""

    message: str
    changed: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    ok: bool = True


class Reloading:
    """``read`` gives the settings as they are written now; ``live`` says what to do where a key (or one below it) differs."""

    def __init__(self, settings: Settings, read: Callable[[], Settings], live: Mapping[str, Apply]) -> None:
        self._in_force = settings
        self._read = read
        self._live = MappingProxyType(dict(live))

    async def reload(self) -> Reloaded:
        """Read, compare, apply. Whatever is wrong is logged, and the settings in force stay."""
        try:
            wanted = await asyncio.to_thread(self._read)
            differing = tuple(differences(self._in_force, wanted))
            changed = tuple(key for key in differing if self._hook(key))
            for hook in dict.fromkeys(self._hook(key) for key in changed):
                self._live[hook](wanted)
        except StartupError as error:
            why = str(error).removeprefix("cannot start: ")
            log.error("the configuration is wrong and was not read again; nothing has changed", extra={"error": why})  # noqa: TRY400
            return Reloaded(f"the configuration is wrong, the old one stays in force: {why}", ok=False)
        waiting = tuple(key for key in differing if key not in changed)
        self._in_force = with_values(self._in_force, wanted, changed)
        return _told(changed, waiting)

    def _hook(self, key: str) -> str:
        return next((hook for hook in self._live if key == hook or key.startswith(f"{hook}.")), "")


def _told(changed: tuple[str, ...], waiting: tuple[str, ...]) -> Reloaded:
    message = f"the configuration was read again; changed: {', '.join(changed) or 'nothing'}"
    if waiting:
        message += f"; only a restart of the agent changes {', '.join(waiting)}"
        log.warning("some settings change only with a restart of the agent", extra={"keys": ", ".join(waiting)})
    log.info("the configuration was read again", extra={"changed": ", ".join(changed)})
    return Reloaded(message, changed, waiting)


def differences(old: BaseModel, new: BaseModel, prefix: str = "") -> Iterator[str]:
    """The keys (``server.port``) whose values differ."""
    for name in type(old).model_fields:
        before, after = getattr(old, name), getattr(new, name)
        if isinstance(before, BaseModel) and isinstance(after, BaseModel):
            yield from differences(before, after, f"{prefix}{name}.")
        elif before != after:
            yield f"{prefix}{name}"


def with_values(old: Settings, new: Settings, keys: tuple[str, ...]) -> Settings:
    """``old`` with the values that ``new`` has for ``keys``."""
    data = old.model_dump()
    for key in keys:
        *sections, name = key.split(".")
        inner, source = data, new.model_dump()
        for section in sections:
            inner, source = inner[section], source[section]
        inner[name] = source[name]
    return Settings.model_validate(data)
