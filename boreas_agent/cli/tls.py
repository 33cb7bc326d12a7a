"""TLS of the commands: whom they trust, what they show, and what went wrong in a sentence."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import NamedTuple

from boreas_agent.errors import BoreasError

_WRONG_NAME = {62, 64}  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
_NOT_NOW = {9, 10}  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED
_ALERTS = {
    "CERTIFICATE_REQUIRED": "it asks for a client certificate; name one with --cert and --key (BOREAS_CERT and BOREAS_KEY)",
    "UNKNOWN_CA": "it does not accept this client certificate (--cert): no CA that it trusts has signed it",
    "CERTIFICATE_EXPIRED": "it does not accept this client certificate (--cert): it has expired",
    "CERTIFICATE": "it does not accept this client certificate (--cert)",
    "PROTOCOL_VERSION": "it speaks no version of TLS that this command speaks",
    "WRONG_VERSION_NUMBER": "it does not speak TLS there; its URL may begin with http://",
}


class TlsFailed(BoreasError):
    """The message says what is wrong, and with which option it is put right."""


class TlsFiles(NamedTuple):
    """Files in PEM form, empty where there is none. Without ``cacert`` the CAs of this machine are trusted."""

    cacert: str = ""
    cert: str = ""
    key: str = ""

    def context(self) -> ssl.SSLContext:
        """Raises TlsFailed, which names the file that is wrong."""
        if self.key and not self.cert:
            raise TlsFailed("cannot use --key (BOREAS_KEY) without --cert (BOREAS_CERT), the certificate it belongs to")
        for option, name in (("--cacert", self.cacert), ("--cert", self.cert), ("--key", self.key)):
            _must_be_readable(option, name)
        try:
            context = ssl.create_default_context(cafile=self.cacert or None)
        except ssl.SSLError:
            raise TlsFailed(f"cannot use {self.cacert} (--cacert or BOREAS_CACERT): it holds no certificate in PEM form") from None
        if self.cert:
            self._show(context)
        return context

    def _show(self, context: ssl.SSLContext) -> None:
        try:
            context.load_cert_chain(self.cert, self.key or None, lambda: "")  # a passphrase would be asked for on the terminal
        except ssl.SSLError as error:
            why = (
                "they do not belong together" if error.reason == "KEY_VALUES_MISMATCH" else "they must be in PEM form, without a passphrase"
            )
            shown = (
                f"{self.cert} with the key {self.key}" if self.key else f"{self.cert} as certificate and key (--key names the key's file)"
            )
            raise TlsFailed(f"cannot use {shown}: {why} (--cert and --key, or BOREAS_CERT and BOREAS_KEY)") from None


def why(error: ssl.SSLError, host: str) -> str:
    """What the user can do about a TLS connection that failed, as the end of a sentence."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _untrusted(error, host)
    reason = error.reason or ""
    for alert, said in _ALERTS.items():
        if reason.endswith(alert):
            return said
    return f"TLS failed: {reason.lower().replace('_', ' ') or error.strerror or error}"


def _untrusted(error: ssl.SSLCertVerificationError, host: str) -> str:
    if error.verify_code in _WRONG_NAME:
        return f"its certificate is for other names than {host!r}; use a name that is in it (--url or BOREAS_URL)"
    if error.verify_code in _NOT_NOW:
        return f"its certificate is not valid now ({error.verify_message}); it has to be renewed, or the clock of one machine is wrong"
    return f"its certificate is not trusted ({error.verify_message}); name the CA that signed it with --cacert or BOREAS_CACERT"


def _must_be_readable(option: str, name: str) -> None:
    if not name:
        return
    try:
        with Path(name).open("rb"):
            pass
    except OSError as error:
        raise TlsFailed(f"cannot read {name} ({option} or BOREAS_{option.strip('-').upper()}): {error.strerror}") from None
