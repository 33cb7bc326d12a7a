"""The image's healthcheck finds where a process listens, and understands what it answers."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

FILE = Path(__file__).parents[2] / "deploy" / "docker" / "healthcheck.py"


@pytest.fixture
def healthcheck() -> ModuleType:
    spec = importlib.util.spec_from_file_location("healthcheck", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def answering(host: str, status: str, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """Answers every request with ``status``; its port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, 0), family=family)

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            try:
                with connection, tls.wrap_socket(connection, server_side=True) if tls else connection as stream:
                    stream.recv(4096)
                    stream.sendall(f"HTTP/1.0 {status}\r\n\r\n".encode())
            except OSError:
                continue

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


@pytest.mark.parametrize(("host", "asked"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::1", "::1"), ("::", "::1")])
def test_it_finds_where_a_process_listens(healthcheck: ModuleType, host: str, asked: str) -> None:
    try:
        with answering(host, "200 OK") as port:
            assert (asked, port) in list(healthcheck.addresses(str(os.getpid())))
            assert healthcheck.answer(asked, port) == "HTTP/1.0 200 OK"
    except OSError as error:
        pytest.skip(f"this machine cannot listen on {host}: {error}")


def test_it_passes_on_what_is_wrong(healthcheck: ModuleType) -> None:
    with answering("127.0.0.1", "503 Service Unavailable") as port:
        assert healthcheck.answer("127.0.0.1", port) == "HTTP/1.0 503 Service Unavailable"
    assert "refused" in healthcheck.answer("127.0.0.1", port)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed: no certificate can be made")
def test_it_speaks_tls_where_the_agent_does(healthcheck: ModuleType, tmp_path: Path) -> None:
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=node", "-days", "2"]
    subprocess.run([*made, "-keyout", tmp_path / "key", "-out", tmp_path / "cert"], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    with answering("127.0.0.1", "200 OK", context) as port:
        assert healthcheck.answer("127.0.0.1", port) == "HTTP/1.0 200 OK"
