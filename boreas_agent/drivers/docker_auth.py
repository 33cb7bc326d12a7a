"""Who we are to private registries: a file in the format that ``docker login`` writes, credential helpers included.

Read anew for every pull, so that renewed credentials need no restart. Whoever may change the file decides which programs run
as the agent (the helpers), so it must be out of reach of others. No message repeats a word of what is in it.
"""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

from boreas_agent.drivers.docker_api import Lane
from boreas_agent.errors import Transient

DEFAULT_FILE = Path("/etc/boreas-agent/docker-config.json")
HELPER_SECONDS = 20.0
_MOST_BYTES = 1 << 20


class Auth:
    """Looks up credentials; ``file`` empty: the default one where it is there, else what the agent's user has from ``docker login``."""

    def __init__(self, file: str = "", *, default: Path = DEFAULT_FILE, patience: float = HELPER_SECONDS) -> None:
        self._file = Path(file) if file else None
        self._default = default
        self._patience = patience
        self._lane = Lane("auth", size=8, share=2)  # a helper may hang

    @property
    def file(self) -> Path:
        """Where credentials are looked for now."""
        if self._file is not None:
            return self._file
        with suppress(OSError, RuntimeError):  # a folder that we may not look into; a user without a home
            return self._default if self._default.exists() else Path.home() / ".docker" / "config.json"
        return self._default

    async def header(self, app: str, registry: str) -> str | None:
        """What the engine is to show the registry, None where there is nothing for it. Raises Transient."""
        seconds = self._patience * 2
        try:
            return await self._lane.run(app, lambda: self._header(registry), seconds)
        except TimeoutError:
            raise Transient(f"cannot use {self._file or self._default} for {registry}: no answer within {seconds:g} s") from None

    def _header(self, registry: str) -> str | None:
        config = self._read()
        if not config:
            return None
        from docker import auth, errors  # noqa: PLC0415  # 15 MB that an agent without Docker does without

        try:
            found = _config(config, self._patience).resolve_authconfig(registry)
        except (errors.DockerException, ValueError, KeyError, TypeError, AttributeError) as error:
            why = str(error) if isinstance(error, _HelperFailed) else "it is not what docker login writes"
            raise Transient(f"cannot use {self.file} for {registry}: {why}") from None
        return auth.encode_header(found).decode("ascii") if found else None

    def _read(self) -> dict[str, Any]:
        path = self.file
        try:
            with path.open("rb") as file:
                fault = _fault(os.fstat(file.fileno()))
                content = b"" if fault else file.read(_MOST_BYTES)
        except FileNotFoundError:
            if self._file is None:
                return {}
            raise Transient(f"cannot use {path}: it does not exist; agent.docker.auth_file names it") from None
        except OSError as error:
            raise Transient(f"cannot use {path}: {error.strerror}") from None
        if fault:
            raise Transient(f"cannot use {path}: {fault}")
        try:
            config = json.loads(content)
        except ValueError:
            raise Transient(f"cannot use {path}: it is not JSON") from None
        if not isinstance(config, dict):
            raise Transient(f"cannot use {path}: it is not what docker login writes")
        return config


def _fault(found: os.stat_result) -> str:
    mode = stat.S_IMODE(found.st_mode)
    if found.st_uid not in {0, os.geteuid()}:
        return f"it belongs to user {found.st_uid}, who could change it; it must belong to root or to the agent's user ({os.geteuid()})"
    if mode & 0o022:
        return f"others than its owner may change it (mode {mode:04o}); chmod 600 ends that"
    return ""


class _HelperFailed(ValueError):
    """A sentence about a credential helper."""


def _config(config: dict[str, Any], patience: float) -> Any:
    """The SDK's reading of the file, with helpers that are bounded in time."""
    from docker.auth import AuthConfig  # noqa: PLC0415

    class Config(AuthConfig):
        def _get_store_instance(self, name: str) -> _Helper:
            return _Helper(name, patience)

    return Config.load_config(None, config)


class _Helper:
    """The program ``docker-credential-NAME``: https://github.com/docker/docker-credential-helpers."""

    def __init__(self, name: str, patience: float) -> None:
        self._program = f"docker-credential-{name}"
        self._patience = patience

    def get(self, server: str) -> dict[str, str]:
        """Its credentials for a registry. Raises CredentialsNotFound, and ValueError where it doesn't work."""
        from docker.credentials import CredentialsNotFound  # noqa: PLC0415

        status, said = self._run(server)
        if status != 0:
            if b"credentials not found" in said:
                raise CredentialsNotFound(f"{self._program} has none")
            words = " ".join(said.decode("utf-8", "replace").split())[:200]
            raise _HelperFailed(f"{self._program} exited with code {status}: {words}")
        try:
            answer = json.loads(said)
            found = {key: str(answer[key]) for key in ("Username", "Secret")}
        except (ValueError, KeyError, TypeError):
            raise _HelperFailed(f"{self._program} did not answer with credentials") from None
        if not any(found.values()):
            raise CredentialsNotFound(f"{self._program} has none")
        return found

    def _run(self, server: str) -> tuple[int, bytes]:
        try:
            helper = subprocess.Popen(
                [self._program, "get"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            raise _HelperFailed(f"{self._program} cannot be run: {error.strerror}; is it installed, in the agent's PATH?") from None
        with helper:
            try:
                said, _ = helper.communicate(server.encode(), self._patience)
            except subprocess.TimeoutExpired:
                with suppress(ProcessLookupError):
                    os.killpg(helper.pid, signal.SIGKILL)
                raise _HelperFailed(f"{self._program} did not answer within {self._patience:g} s") from None
            return helper.returncode, said
