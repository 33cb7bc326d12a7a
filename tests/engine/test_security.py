"""TLS, client certificates and tokens with the real agent, the real command and real files that are renewed under it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import Authority, Pair, replace, token_file
from tests.engine.node import Node
from tests.waiting import eventually

READ = "read-4a1c9e7be02f41d8"
APPLY = "apply-77d0e35a1bc94f26"
NEXT = "apply-c05d11e8f27a4b93"
HELLO = {"app": "hello", "version": "v1", "pkg": {"type": "script", "script": "echo done"}}


class SecureNode(Node):
    """A node whose agent listens with TLS and wants a certificate and a token of everybody."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca, self.clients = Authority(folder), Authority(folder, "clients")
        self.pair = self.ca.leaf("server")
        self.me = self.clients.leaf("me", "ops@example.com")
        self.tokens = token_file(folder / "tokens", f"ci:apply:{APPLY}", f"grafana:read:{READ}")
        self.token = APPLY
        super().__init__(
            folder / "work",
            AGENT_SERVER_TLS_CERT=str(self.pair.cert),
            AGENT_SERVER_TLS_KEY=str(self.pair.key),
            AGENT_SERVER_TLS_CLIENT_CA=str(self.clients.file),
            AGENT_SERVER_TOKEN_FILE=str(self.tokens),
            AGENT_LOG_LEVEL="debug",
        )

    def request(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        context = self.ca.trusting(self.me)
        with closing(http.client.HTTPSConnection("127.0.0.1", self.port, timeout=60, context=context)) as connection:
            headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.token}"}
            try:
                connection.request(method, path, None if body is None and method == "GET" else json.dumps(body or {}), headers)
                answer = connection.getresponse()
                return answer.status, json.loads(answer.read())
            except (ConnectionError, http.client.HTTPException, ssl.SSLError):
                return 0, None

    def boreas(self, *arguments: str, token: str = APPLY, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """A command as a user would give it, with everything in its environment."""
        where = {"URL": f"https://127.0.0.1:{self.port}", "CACERT": self.ca.file, "CERT": self.me.cert, "KEY": self.me.key, "TOKEN": token}
        return subprocess.run(
            [sys.executable, "-m", "boreas_agent", *arguments],
            env=os.environ | {f"BOREAS_{name}": str(value) for name, value in where.items()},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def serves(self) -> bytes:
        """The certificate that a new connection is shown."""
        return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", self.port), ca_certs=str(self.ca.file), timeout=20))

    def log(self) -> str:
        return self.work_dir.with_suffix(".log").read_text()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[SecureNode]:
    node = SecureNode(tmp_path)
    node.start()
    try:
        yield node
    finally:
        node.token = node.tokens.read_text().split(":apply:")[1].split("\n")[0]
        node.clean_up()


def der(pair: Pair) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pair.cert.read_text())


def test_an_app_is_deployed_with_certificate_and_token_and_nothing_of_a_token_is_left_anywhere(node: SecureNode) -> None:
    done = node.boreas("apply", "-f", "-", stdin=json.dumps(HELLO))
    assert (done.returncode, done.stderr) == (0, "")
    assert "hello: ok: completed (100)" in done.stdout
    assert "hello" in node.boreas("status", token=READ).stdout
    refused = node.boreas("hold", "hello", token=READ)
    assert (refused.returncode, refused.stderr) == (1, "boreas-agent: the token grafana may only read; a change needs one of scope apply\n")
    assert node.boreas("status", token=NEXT).returncode == 1
    by = "api 127.0.0.1 (certificate ops@example.com, token ci)"
    assert node.sql("SELECT submitted_by FROM v_revisions") == [(by,)]
    assert node.events("hello")[0] == f"Applied: recorded by {by}: version v1, revision 1"
    node.boreas("hold", "hello")
    node.boreas("release", "hello")
    written = [node.log().encode(), *(file.read_bytes() for file in node.work_dir.rglob("*") if file.is_file())]
    assert any(by.encode() in content for content in written)
    for secret in (READ, APPLY, NEXT):
        assert not any(secret.encode() in content for content in written)


def test_certificates_and_tokens_are_renewed_while_the_agent_runs(node: SecureNode) -> None:
    renewed, third = node.ca.leaf("renewed"), node.ca.leaf("third")
    assert node.serves() == der(node.pair)
    node.pair.take(renewed)
    eventually(lambda: node.serves() == der(renewed), 30)
    replace(node.pair.cert, third.cert.read_bytes())
    eventually(lambda: "belongs to another one" in node.log(), 30)
    assert node.serves() == der(renewed)
    replace(node.pair.key, third.key.read_bytes())
    eventually(lambda: node.serves() == der(third), 30)

    replace(node.tokens, f"ci:apply:{APPLY}\nci:apply:{NEXT}\n".encode())
    eventually(lambda: node.boreas("status", token=NEXT).returncode == 0, 30)
    assert node.boreas("status", token=APPLY).returncode == 0
    assert node.boreas("status", token=READ).returncode == 1
    replace(node.tokens, f"ci:apply:{NEXT}\n".encode())
    eventually(lambda: node.boreas("status", token=APPLY).returncode == 1, 30)
    node.tokens.chmod(0o644)
    eventually(lambda: "others than its owner have rights on it" in node.log(), 30)
    assert node.boreas("status", token=NEXT).returncode == 0
    node.tokens.chmod(0o600)


def test_the_agent_stops_in_time_with_quiet_connections_and_half_a_handshake_open(node: SecureNode) -> None:
    context = node.ca.trusting(node.me)
    open_ones = [http.client.HTTPSConnection("127.0.0.1", node.port, timeout=20, context=context) for _ in range(3)]
    silent = http.client.HTTPConnection("127.0.0.1", node.port, timeout=20)
    try:
        for one in open_ones:
            one.connect()
        silent.connect()
        assert node.process is not None
        node.process.send_signal(signal.SIGTERM)
        assert node.process.wait(15) == 0
    finally:
        for one in (*open_ones, silent):
            one.close()
    assert "Traceback" not in node.log()


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda node: node.pair.cert.unlink(), "cannot use the certificate {0}/server.crt: No such file or directory"),
        (
            lambda node: replace(node.pair.key, node.me.key.read_bytes()),
            "cannot use the certificate {0}/server.crt: the private key {0}/server.key belongs to another one",
        ),
        (lambda node: node.clients.file.write_text("x"), "cannot use the client CA {0}/clients.pem: it holds no certificate in PEM form"),
        (
            lambda node: node.tokens.chmod(0o640),
            "cannot use the token file {0}/tokens: others than its owner have rights on it (mode 0640); chmod 600 takes them away",
        ),
        (
            lambda node: node.tokens.write_text(f"ci:{APPLY}"),
            "cannot use the token file {0}/tokens: the scope in line 1 is neither read nor ",
        ),
    ],
)
def test_a_start_with_a_wrong_file_is_one_line_and_touches_nothing(tmp_path: Path, spoil: Any, why: str) -> None:
    node = SecureNode(tmp_path)
    spoil(node)
    node.start(wait=False)
    assert node.process is not None
    assert node.process.wait(30) == 2
    assert node.log().startswith(f"boreas-agent: cannot start: {why.format(tmp_path)}")
    assert node.log().count("\n") == 1
    assert APPLY not in node.log()
    assert not node.work_dir.exists()
