"""Certificates: the context of the listener, and the names in the certificate that a client shows."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Mapping
from contextvars import ContextVar
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Protocol

from msgspec import Struct

from boreas_agent.api.watched import read
from boreas_agent.errors import Unusable

San = tuple[str, str]
"""Kind (DNS, URI, IP or email) and name: a DNS name that looks like an address is none."""
_KINDS = {"DNS": "DNS", "URI": "URI", "IP Address": "IP", "email": "email"}


class Tls(Struct, frozen=True):
    """What new connections are served with; ``client_ca`` is the digest of the CA file, empty where there is none."""

    context: ssl.SSLContext
    client_ca: bytes


def load(cert: Path, key: Path, client_ca: Path | None) -> Tls:
    """Blocking. Raises Unusable, which names the file that is wrong."""
    _must_contain(cert, "the certificate", b"-----BEGIN CERTIFICATE-----")
    _must_contain(key, "the private key", b"PRIVATE KEY-----")
    context = _TellingContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    _load_pair(context, cert, key)
    if client_ca is None:
        return Tls(context, b"")
    authorities = _must_contain(client_ca, "the client CA", b"-----BEGIN CERTIFICATE-----")
    try:
        context.load_verify_locations(cadata=authorities.decode("ascii", "replace"))
    except ssl.SSLError as error:
        raise Unusable(f"cannot use the client CA {client_ca}: {_reason(error)}") from None
    context.verify_mode = ssl.CERT_OPTIONAL  # /v1/health answers without one; every other call is looked at by itself
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # what is in the file is trusted, also where it isn't a root
    return Tls(context, hashlib.sha256(authorities).digest())


def _must_contain(path: Path, what: str, mark: bytes) -> bytes:
    content = read(path, what)
    if mark not in content:
        raise Unusable(f"cannot use {what} {path}: it holds no {mark.decode().strip('-').removeprefix('BEGIN ').lower()} in PEM form")
    return content


def _load_pair(context: ssl.SSLContext, cert: Path, key: Path) -> None:
    asked: list[None] = []

    def passphrase() -> str:  # without this OpenSSL would ask on the terminal, and wait
        asked.append(None)
        return ""

    try:
        context.load_cert_chain(cert, key, passphrase)
    except (ssl.SSLError, OSError) as error:
        if asked:
            raise Unusable(f"cannot use the private key {key}: it is protected by a passphrase, and nobody is there to type it") from None
        if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
            raise Unusable(f"cannot use the certificate {cert}: the private key {key} belongs to another one") from None
        raise Unusable(f"cannot use the certificate {cert} with the private key {key}: {_reason(error)}") from None


def _reason(error: OSError) -> str:
    return str(getattr(error, "reason", None) or error.strerror or error).lower().replace("_", " ")


# --- who a client is -----------------------------------------------------------------------------


def san(text: str) -> San:
    """A name as it is written in the settings: its kind is what it looks like, or is put before it (``DNS:``, ``IP:`` …)."""
    kind, separator, name = text.partition(":")
    if separator and kind in {"DNS", "URI", "IP", "email"}:
        return kind, _address(name) or name if kind == "IP" else name
    if address := _address(text):
        return "IP", address
    return "URI" if separator else "email" if "@" in text else "DNS", text


def sans(certificate: Mapping[str, Any]) -> tuple[San, ...]:
    """The names of a verified certificate."""
    found = ((_KINDS[kind], name) for kind, name in certificate.get("subjectAltName", ()) if kind in _KINDS)
    return tuple((kind, _address(name) or name if kind == "IP" else name) for kind, name in found)


def common_name(certificate: Mapping[str, Any]) -> str:
    """What a certificate without any such name is called in the history."""
    names = [value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"]
    return names[0] if names else f"serial number {certificate.get('serialNumber', 'unknown')}"


def _address(text: str) -> str:
    """An address in its one form, empty where it is none: ``::1`` is written in many ways."""
    try:
        return str(ip_address(text.strip()))
    except ValueError:
        return ""


# --- saying no -----------------------------------------------------------------------------------


class Wire(Protocol):
    """Where a handshake's bytes go."""

    def write(self, data: bytes, /) -> None: ...


wire: ContextVar[Wire] = ContextVar("wire")
"""The transport under the handshake that is about to begin; set by who begins it."""


_IN_CLEAR_TEXT = b'{"success":false,"message":"this port speaks TLS: its URL begins with https://","status":400,"title":"Bad Request"}\n'
_CLEAR_TEXT_ANSWER = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/problem+json\r\nServer: boreas-agent\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_IN_CLEAR_TEXT), _IN_CLEAR_TEXT)
)


class _Telling(ssl.SSLObject):
    """asyncio drops the connection of a failed handshake without sending the alert, so that clients could not say what was wrong."""

    outgoing: ssl.MemoryBIO
    wire: Wire | None

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            if self.wire is not None:
                self.wire.write(_CLEAR_TEXT_ANSWER if error.reason == "HTTP_REQUEST" else self.outgoing.read())
            raise


class _TellingContext(ssl.SSLContext):
    sslobject_class = _Telling

    def wrap_bio(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *args: Any, **options: Any) -> ssl.SSLObject:
        wrapped = super().wrap_bio(incoming, outgoing, *args, **options)
        assert isinstance(wrapped, _Telling)
        wrapped.outgoing, wrapped.wire = outgoing, wire.get(None)
        return wrapped
