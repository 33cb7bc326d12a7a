"""Certificates: which files the agent takes, and how the names in a client's certificate are compared."""

from __future__ import annotations

import re
import ssl
import subprocess
from pathlib import Path

import pytest

from boreas_agent.api import Security
from boreas_agent.api.tls import load, san, sans
from boreas_agent.errors import StartupError, Unusable
from boreas_agent.settings import Server
from tests.certificates import Authority, Pair


@pytest.fixture
def ours(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def test_a_good_pair_is_served_from_tls_1_2_on(ours: Authority) -> None:
    pair = ours.leaf("server")
    tls = load(pair.cert, pair.key, ours.file)
    assert tls.context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert tls.context.verify_mode == ssl.CERT_OPTIONAL
    assert load(pair.cert, pair.key, None).context.verify_mode == ssl.CERT_NONE


def test_a_wrong_file_is_named_with_what_is_wrong_with_it(ours: Authority, tmp_path: Path) -> None:
    pair, other = ours.leaf("server"), ours.leaf("other")
    empty = tmp_path / "empty"
    empty.touch()
    torn = tmp_path / "torn"
    torn.write_bytes(pair.cert.read_bytes()[:200])
    missing = tmp_path / "missing"
    for cert, key, client_ca, why in (
        (missing, pair.key, None, f"cannot use the certificate {missing}: No such file or directory"),
        (pair.cert, missing, None, f"cannot use the private key {missing}: No such file or directory"),
        (pair.cert, pair.key, missing, f"cannot use the client CA {missing}: No such file or directory"),
        (empty, pair.key, None, f"cannot use the certificate {empty}: it holds no certificate in PEM form"),
        (pair.cert, empty, None, f"cannot use the private key {empty}: it holds no private key in PEM form"),
        (pair.key, pair.key, None, f"cannot use the certificate {pair.key}: it holds no certificate in PEM form"),
        (pair.cert, pair.cert, None, f"cannot use the private key {pair.cert}: it holds no private key in PEM form"),
        (pair.cert, other.key, None, f"cannot use the certificate {pair.cert}: the private key {other.key} belongs to another one"),
        (torn, pair.key, None, f"cannot use the certificate {torn} with the private key {pair.key}: "),
        (pair.cert, pair.key, empty, f"cannot use the client CA {empty}: it holds no certificate in PEM form"),
        (pair.cert, pair.key, torn, f"cannot use the client CA {torn}: "),
        (pair.cert, tmp_path, None, f"cannot use the private key {tmp_path}: it is not a file"),
    ):
        with pytest.raises(Unusable, match=re.escape(why)) as refused:
            load(cert, key, client_ca)
        assert "\n" not in str(refused.value)


def test_a_key_with_a_passphrase_is_refused_instead_of_asking_for_it(ours: Authority, tmp_path: Path) -> None:
    pair = ours.leaf("server")
    locked = tmp_path / "locked.key"
    subprocess.run(["openssl", "pkey", "-in", pair.key, "-aes256", "-passout", "pass:x", "-out", locked], check=True, capture_output=True)
    with pytest.raises(Unusable, match=f"cannot use the private key {locked}: it is protected by a passphrase"):
        load(pair.cert, locked, None)


def test_a_start_with_a_wrong_file_says_that_it_cannot_be(ours: Authority, tmp_path: Path) -> None:
    pair = ours.leaf("server")
    with pytest.raises(StartupError, match=f"^cannot start: cannot use the client CA {tmp_path}/none: No such file"):
        Security.open(Server(tls_cert=str(pair.cert), tls_key=str(pair.key), tls_client_ca=str(tmp_path / "none")))


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("controller.example.com", ("DNS", "controller.example.com")),
        ("DNS:10.0.0.1", ("DNS", "10.0.0.1")),
        ("10.0.0.1", ("IP", "10.0.0.1")),
        ("2001:DB8:0:0:0:0:0:1", ("IP", "2001:db8::1")),
        ("IP:::1", ("IP", "::1")),
        ("spiffe://boreas/controller", ("URI", "spiffe://boreas/controller")),
        ("urn:uuid:1", ("URI", "urn:uuid:1")),
        ("URI:plain", ("URI", "plain")),
        ("ops@example.com", ("email", "ops@example.com")),
        ("email:ops@example.com", ("email", "ops@example.com")),
    ],
)
def test_the_kind_of_a_name_is_what_it_looks_like_or_is_put_before_it(text: str, meant: tuple[str, str]) -> None:
    assert san(text) == meant


def test_the_names_of_a_certificate_keep_their_kinds(ours: Authority) -> None:
    certificate = {
        "subjectAltName": (("DNS", "10.0.0.1"), ("IP Address", "2001:DB8:0:0:0:0:0:1\n"), ("DirName", "x"), ("URI", "spiffe://a"))
    }
    assert sans(certificate) == (("DNS", "10.0.0.1"), ("IP", "2001:db8::1"), ("URI", "spiffe://a"))
    assert sans({}) == ()


def test_nothing_is_left_open_after_a_file_was_refused(ours: Authority, tmp_path: Path) -> None:
    pair = ours.leaf("server")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for wrong in (tmp_path, tmp_path / "none"):
        with pytest.raises(Unusable):
            load(wrong, pair.key, None)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_pair_is_replaced_whole(ours: Authority) -> None:
    one, two = ours.leaf("one"), ours.leaf("two")
    one.take(two)
    assert Pair(one.cert, one.key).cert.read_bytes() == two.cert.read_bytes()
    assert load(one.cert, one.key, None)
