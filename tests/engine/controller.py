"""The platform's controller as its document describes it: the calls it makes and takes, and nothing else.

Agents and environments are in its memory only, so a controller that was restarted knows nobody. It waits at most 30 seconds for an
answer, takes 200 alone for a yes, and a deployment has succeeded once the app's level is 80 or more.
"""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from tests.ports import free_port

TIMEOUT_SECONDS = 30
HEALTHY = 80


class Controller:
    """Started and stopped like a real one; ``agents`` is what it remembers, ``calls`` what every registration said."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.agents: dict[str, str] = {}
        self.calls: list[tuple[str, dict[str, str], Any]] = []
        self._environments: dict[str, str] = {}
        self._server: ThreadingHTTPServer | None = None

    # --- its life --------------------------------------------------------------------------------

    def start(self) -> None:
        """Listen; remembers nothing of an earlier life."""
        self.agents.clear()
        controller = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = controller._take(self.path, dict(self.headers), body)
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(b'{"success": true}' if status == 200 else b'{"success": false, "message": "no such call"}')

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        """Gone, and with it all that it knew."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        self.agents.clear()

    def restart(self) -> None:
        """Stop and start."""
        self.stop()
        self.start()

    def _take(self, path: str, headers: dict[str, str], body: bytes) -> int:
        told = json.loads(body)
        self.calls.append((path, headers, told))
        if path != "/api/v1/agents" or set(told) != {"agent_id", "agent_url"}:
            return 404
        self.agents[told["agent_id"]] = told["agent_url"]
        return 200

    # --- what people tell it ---------------------------------------------------------------------

    def environment(self, document: dict[str, Any]) -> None:
        """``{"name": …, "type": "physical", "config": {"agent_id": …}}``."""
        assert document["type"] == "physical"
        self._environments[document["name"]] = document["config"]["agent_id"]

    # --- what it tells agents --------------------------------------------------------------------

    def deploy(self, environment: str, body: dict[str, Any]) -> None:
        """Submit; anything but a 200 is a failed deployment."""
        status, answer = self._call(environment, "POST", "/v1/apply", body)
        assert status == 200, (status, answer)

    def succeeded(self, environment: str, app: str, version: str) -> bool:
        """One poll; an agent that cannot be reached or knows no app has not deployed anything."""
        try:
            status, answer = self._call(environment, "GET", "/v1/status")
        except (OSError, http.client.HTTPException, KeyError):
            return False
        assert status == 200, (status, answer)
        return any(one["app"] == app and one["version"] == version and one["healthy"]["level"] >= HEALTHY for one in answer["apps"])

    def level(self, environment: str) -> int:
        """The node's own."""
        return int(self._call(environment, "GET", "/v1/status")[1]["healthy"]["level"])

    def _call(self, environment: str, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
        """To wherever the environment's agent said it is."""
        address = urlsplit(self.agents[self._environments[environment]])
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=TIMEOUT_SECONDS)
        try:
            headers = {"Content-Type": "application/json"} if body is not None else {}
            connection.request(method, address.path + path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()


@contextmanager
def controlling() -> Iterator[Controller]:
    """A controller that has been started; stopped at the end."""
    controller = Controller()
    controller.start()
    try:
        yield controller
    finally:
        controller.stop()
