"""Who may change something: peers of trusted networks, sending JSON, from no foreign web page.

Reading is free. A change must come from a trusted network (the TCP peer's address; headers that claim
another one are a stranger's words), declare itself as ``application/json`` (a web page cannot send that
to another site without asking first) and, where a browser sent it, come from the agent's own pages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address

from aiohttp import hdrs, web

Network = IPv4Network | IPv6Network
READING = frozenset({"GET", "HEAD"})


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a connection; ``address`` is empty for a unix socket, which file permissions guard."""

    address: str
    trusted: bool


class Peers:
    """Looks up remote addresses, in networks that may change while the agent runs."""

    def __init__(self, trusted: Iterable[Network]) -> None:
        self._look = peers(trusted)

    def trust(self, trusted: Iterable[Network]) -> None:
        """From now on these, and no others."""
        self._look = peers(trusted)

    def __call__(self, remote: str | None) -> Peer:
        return self._look(remote)


PEERS = web.AppKey("PEERS", Peers)
"""Where the application keeps its own."""


def peers(trusted: Iterable[Network]) -> Callable[[str | None], Peer]:
    """Looks up remote addresses; the answers are kept, since a connection sends many requests."""
    networks = tuple(trusted)

    @lru_cache(maxsize=1024)
    def look(remote: str | None) -> Peer:
        if not remote or remote.startswith("/"):
            return Peer("", trusted=True)
        try:
            address = ip_address(remote)
        except ValueError:
            return Peer(remote, trusted=False)
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped  # how a dual-stack socket shows IPv4 peers
        return Peer(str(address), any(address in network for network in networks))

    return look


def check_change(request: web.Request, peer: Peer) -> None:
    """Raises the HTTPException that says why this request may not change anything."""
    if not peer.trusted:
        raise web.HTTPForbidden(
            text=f"changes are not accepted from {peer.address}, which is in no trusted network; "
            "to allow it add its network to server.trusted_networks in agent.yaml (or --trusted-network)"
        )
    headers = request.headers
    if hdrs.ORIGIN in headers:
        _check_origin(request)
    if headers.get(hdrs.CONTENT_TYPE) != "application/json":
        _check_content_type(request)
    if headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
        raise web.HTTPUnsupportedMediaType(text="compressed bodies are not accepted; send the JSON as it is")


def _check_origin(request: web.Request) -> None:
    own = f"{request.scheme}://{request.host}".lower()
    for origin in request.headers.getall(hdrs.ORIGIN):
        if origin.lower() != own:
            raise web.HTTPForbidden(text=f"changes are not accepted from web pages of {origin[:200]!r}; this agent is {own[:200]!r}")


def _check_content_type(request: web.Request) -> None:
    if hdrs.CONTENT_TYPE not in request.headers or request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType(text="changes are accepted as JSON only; send the header Content-Type: application/json")
    if (request.charset or "utf-8").lower() not in ("utf-8", "utf8"):
        raise web.HTTPUnsupportedMediaType(text=f"JSON is UTF-8, not {request.charset!r}")
