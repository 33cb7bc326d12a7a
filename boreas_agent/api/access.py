"""Who may call: known callers, and for a change peers of trusted networks, sending JSON, from no foreign web page.

With tokens or a client CA every call but the one for health must say who it is, by a token, a certificate or both.
A change must also come from a trusted network (the TCP peer's address; headers that claim
another one are a stranger's words), declare itself as ``application/json`` (a web page cannot send that
to another site without asking first) and, where a browser sent it, come from the agent's own pages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address

from aiohttp import hdrs, web
from msgspec import Struct

from boreas_agent.api import tls
from boreas_agent.api.security import Security

Network = IPv4Network | IPv6Network
READING = frozenset({"GET", "HEAD"})
OPEN_PATH = "/v1/health"
"""For load balancers and container health checks, which have no credentials."""
_CALLER = web.RequestKey("caller", str)
_CHALLENGE = {hdrs.WWW_AUTHENTICATE: 'Bearer realm="boreas-agent"'}
MAX_NAME = 200


class Peer(Struct, frozen=True):
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


# --- who it is -----------------------------------------------------------------------------------


def check_caller(request: web.Request, security: Security) -> None:
    """Notes who calls, for :func:`signed`; raises the HTTPException for one who is unknown or may do less than is asked for."""
    if request.path == OPEN_PATH and request.method in READING:
        return
    names = []
    if security.certificates:
        names.append(f"certificate {_certificate(request, security)}")
    if security.tokens is not None:
        token = security.tokens.value.find(_presented(request))
        if token is None:
            raise web.HTTPUnauthorized(
                text="the token is not known to this agent; it may have been replaced (boreas-agent: --token or BOREAS_TOKEN)",
                headers=_CHALLENGE,
            )
        if token.scope == "read" and request.method not in READING:
            raise web.HTTPForbidden(text=f"the token {token.name} may only read; a change needs one of scope apply")
        names.append(f"token {token.name}")
    request[_CALLER] = ", ".join(names)


def signed(request: web.Request, peer: Peer) -> str:
    """Who asks for something, as the history keeps it: the address, and the name where callers must have one."""
    who = f"api {peer.address or 'local'}"
    caller = request.get(_CALLER)
    return f"{who} ({caller})" if caller else who


def _certificate(request: web.Request, security: Security) -> str:
    """The name in the client's certificate that lets it in; the handshake has verified who signed it, and until when."""
    certificate = request.get_extra_info("peercert")
    if not certificate:
        raise web.HTTPUnauthorized(
            text="a client certificate is needed, signed by a CA of this agent's server.tls_client_ca "
            "(boreas-agent: --cert and --key, or BOREAS_CERT and BOREAS_KEY)",
            headers=_CHALLENGE,
        )
    names = tls.sans(certificate)
    allowed = [name for name in names if name in security.sans or not security.sans]
    if security.sans and not allowed:
        shown = ", ".join(name for _, name in names) or f"nobody but {tls.common_name(certificate)}"
        raise web.HTTPForbidden(
            text=f"the certificate is for {_shown(shown)}, which is not allowed here; "
            "to allow it add the name to server.tls_client_sans in agent.yaml (or --tls-client-san)"
        )
    return _shown(allowed[0][1] if allowed else tls.common_name(certificate))


def _presented(request: web.Request) -> str:
    given = request.headers.getall(hdrs.AUTHORIZATION, [])
    scheme, _, secret = given[0].partition(" ") if len(given) == 1 else ("", "", "")
    if scheme.lower() != "bearer" or not secret.strip():
        raise web.HTTPUnauthorized(
            text="a token is needed: send the header Authorization: Bearer TOKEN, once (boreas-agent: --token or BOREAS_TOKEN)",
            headers=_CHALLENGE,
        )
    return secret.strip()


def _shown(name: str) -> str:
    return "".join(char if char.isprintable() else "\ufffd" for char in name[:MAX_NAME])


# --- whether it may change something -------------------------------------------------------------


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
