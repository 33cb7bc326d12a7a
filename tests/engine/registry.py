"""A real registry on a loopback port; engines take registries on 127.0.0.0/8 without TLS."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

from tests.engine.engine import Engine, program
from tests.ports import free_port
from tests.waiting import eventually

_CONFIG = """version: 0.1
log: {{level: warn, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {root}}}, delete: {{enabled: true}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""
_GUARDED = """auth: {{htpasswd: {{realm: tests, path: {path}}}}}
"""
USER, PASSWORD = "robot", "s3cret"
_HTPASSWD = "robot:$2b$04$abcdefghijklmnopqrstuuLZYjhNQAOdpbzt4WxWlUHjv1wsyH5DG\n"
"""The two of them, hashed with bcrypt."""


class Registry:
    """Holds one image, ``image``; ``port`` is where it listens on 127.0.0.1. ``guarded``: USER with PASSWORD alone gets in."""

    def __init__(self, engine: Engine, *, guarded: bool = False) -> None:
        self._engine = engine
        self._root = Path(tempfile.mkdtemp(prefix="boreas-registry-"))
        self.port = free_port()
        config = self._root / "config.yml"
        users = self._root / "htpasswd"
        users.write_text(_HTPASSWD)
        config.write_text(_CONFIG.format(root=self._root / "data", port=self.port) + (_GUARDED.format(path=users) if guarded else ""))
        with (self._root / "log").open("wb") as log:
            command = [program("setpriv"), "--pdeathsig", "TERM", program("docker-registry"), "serve", str(config)]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        eventually(self._answers, 20)
        self.image = self.push("base:1")

    @property
    def host(self) -> str:
        """What an image reference begins with."""
        return f"127.0.0.1:{self.port}"

    def push(self, name: str, *changes: str) -> str:
        """Make an image that is here as ``name``, and nowhere else; its reference."""
        reference = f"{self.host}/{name}"
        self._engine.make_image(reference, *changes)
        repository, _, tag = reference.rpartition(":")
        who = {"username": USER, "password": PASSWORD}
        answer = list(self._engine.client.push(repository, tag, stream=True, decode=True, auth_config=who))
        assert not any("error" in message for message in answer), answer
        self._engine.client.remove_image(reference)
        return reference

    def close(self) -> None:
        """Stop it and leave nothing behind."""
        self._process.terminate()
        self._process.wait(20)
        shutil.rmtree(self._root)

    def _answers(self) -> bool:
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        return False
