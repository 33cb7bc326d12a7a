"""Who may call at all, from files that are followed: the listener's certificates, the tokens, and the names of certificates.

``Security.open`` when the agent starts, ``followed`` while it listens, ``reload`` when somebody asks for it (SIGHUP).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from msgspec import Struct

from boreas_agent.api import tls, tokens
from boreas_agent.api.tls import San, Tls
from boreas_agent.api.tokens import Tokens
from boreas_agent.api.watched import LOOK_SECONDS, Watched
from boreas_agent.errors import StartupError, Unusable
from boreas_agent.settings import Server

_log = logging.getLogger(__name__)


class Security(Struct, frozen=True):
    """Where all of it is None, everybody who reaches the port may read, and trusted networks may change."""

    tls: Watched[Tls] | None = None
    tokens: Watched[Tokens] | None = None
    certificates: bool = False  # every caller must show one
    sans: frozenset[San] = frozenset()  # of these names; empty: any that the CA signed

    @classmethod
    def open(cls, server: Server) -> Security:
        """Read all files that ``server`` names. Blocking. Raises StartupError."""
        try:
            return cls(
                _certificates(server) if server.tls_cert else None,
                _tokens(Path(server.token_file)) if server.token_file else None,
                bool(server.tls_client_ca),
                frozenset(tls.san(text) for text in server.tls_client_sans),
            )
        except Unusable as error:
            raise StartupError(f"cannot start: {error}") from None

    async def reload(self) -> None:
        """Read all files anew, now. What cannot be used leaves the old in force, with a warning."""
        await asyncio.to_thread(self._look, at_once=True)

    @asynccontextmanager
    async def followed(self) -> AsyncIterator[None]:
        """While the context lasts, changed files take hold by themselves."""
        if not self._watched():
            yield
            return
        following = asyncio.create_task(self._follow())
        try:
            yield
        finally:
            following.cancel()
            await asyncio.wait({following})

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await asyncio.to_thread(self._look)
            except Exception:  # noqa: BLE001  # whatever it is, the next look may do better; without looks nothing is ever renewed
                _log.exception("cannot look for changed certificates and tokens")

    def _look(self, *, at_once: bool = False) -> None:
        for watched in self._watched():
            watched.look(at_once=at_once)

    def _watched(self) -> tuple[Watched[Any], ...]:
        return tuple(watched for watched in (self.tls, self.tokens) if watched is not None)


def _certificates(server: Server) -> Watched[Tls]:
    cert, key = Path(server.tls_cert), Path(server.tls_key)
    client_ca = Path(server.tls_client_ca) if server.tls_client_ca else None
    paths = (cert, key) if client_ca is None else (cert, key, client_ca)
    return Watched("the certificates", paths, lambda: tls.load(cert, key, client_ca))


def _tokens(path: Path) -> Watched[Tokens]:
    return Watched("the token file", (path,), lambda: tokens.load(path))
