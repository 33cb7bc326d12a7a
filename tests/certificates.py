"""Real certificates for tests: authorities made on the spot, and leaves for servers and clients."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as files."""

    cert: Path
    key: Path

    def take(self, other: Pair) -> None:
        """Hold what ``other`` holds, by renaming, as those who renew certificates do."""
        for mine, theirs in ((self.cert, other.cert), (self.key, other.key)):
            replace(mine, theirs.read_bytes())


@dataclass(frozen=True)
class Authority:
    """A CA; its leaves are written to ``folder``."""

    folder: Path
    name: str = "ca"
    ca: trustme.CA = field(default_factory=lambda: trustme.CA(key_type=trustme.KeyType.ECDSA))

    def __post_init__(self) -> None:
        self.file.write_bytes(self.ca.cert_pem.bytes())

    @property
    def file(self) -> Path:
        return self.folder / f"{self.name}.pem"

    def leaf(self, name: str, *identities: str, expired: bool = False) -> Pair:
        """For hosts, addresses or mailboxes; ``127.0.0.1`` where none is given."""
        now = datetime.now(UTC)
        times = {"not_before": now - timedelta(days=3), "not_after": now - timedelta(days=1)} if expired else {}
        made = self.ca.issue_cert(*(identities or ("127.0.0.1",)), **times)
        return self._written(name, made.cert_chain_pems[0].bytes(), made.private_key_pem.bytes())

    def leaf_of(self, name: str, sans: list[x509.GeneralName], common_name: str = "somebody") -> Pair:
        """With names that trustme has no words for: URIs, or none at all."""
        key = ec.generate_private_key(ec.SECP256R1())
        authority = x509.load_pem_x509_certificate(self.ca.cert_pem.bytes())
        signer = serialization.load_pem_private_key(self.ca.private_key_pem.bytes(), None)
        assert isinstance(signer, ec.EllipticCurvePrivateKey)
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
            .issuer_name(authority.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        )
        if sans:
            builder = builder.add_extension(x509.SubjectAlternativeName(sans), critical=False)
        pem = serialization.Encoding.PEM
        private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return self._written(name, builder.sign(signer, hashes.SHA256()).public_bytes(pem), private)

    def trusting(self, shown: Pair | None = None) -> ssl.SSLContext:
        """A client that trusts this CA alone and shows ``shown``."""
        context = ssl.create_default_context(cafile=str(self.file))
        if shown is not None:
            context.load_cert_chain(shown.cert, shown.key)
        return context

    def _written(self, name: str, cert: bytes, key: bytes) -> Pair:
        pair = Pair(self.folder / f"{name}.crt", self.folder / f"{name}.key")
        pair.cert.write_bytes(cert)
        pair.key.write_bytes(key)
        return pair


def replace(path: Path, content: bytes) -> None:
    """Put other content in the place of a file at one blow, with the same mode."""
    new = path.with_suffix(path.suffix + ".new")
    new.write_bytes(content)
    new.chmod(path.stat().st_mode)
    new.rename(path)


def token_file(path: Path, *lines: str, mode: int = 0o600) -> Path:
    """A token file as the agent wants it."""
    path.write_text("".join(f"{line}\n" for line in lines))
    path.chmod(mode)
    return path
