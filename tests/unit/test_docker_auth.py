"""Credentials for registries: from a file that only its owner can change, by helpers that may not hang."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from boreas_agent.drivers.docker_auth import Auth
from boreas_agent.errors import Transient
from tests.engine.node import processes_with

REGISTRY = "registry.example.com:5000"
LOGIN = base64.b64encode(b"robot:s3:cret").decode()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.json"


def _write(file: Path, config: object, mode: int = 0o600) -> Path:
    file.write_text(config if isinstance(config, str) else json.dumps(config))
    file.chmod(mode)
    return file


def _helper(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str, name: str = "fake") -> None:
    """A program ``docker-credential-NAME`` in the path."""
    program = folder / f"docker-credential-{name}"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def _ask(auth: Auth, registry: str = REGISTRY) -> dict[str, Any] | None:
    header = asyncio.run(auth.header("web", registry))
    return None if header is None else dict(json.loads(base64.urlsafe_b64decode(header)))


def test_a_login_is_found_under_the_name_of_its_registry(file: Path) -> None:
    auth = Auth(str(_write(file, {"auths": {REGISTRY: {"auth": LOGIN}, "https://index.docker.io/v1/": {"auth": LOGIN}}})))
    found = _ask(auth)
    assert found is not None
    assert (found["username"], found["password"]) == ("robot", "s3:cret")
    assert _ask(auth, "docker.io") is not None
    assert _ask(auth, "other.example.com") is None


def test_the_file_is_read_for_every_pull(file: Path) -> None:
    auth = Auth(str(_write(file, {})))
    assert _ask(auth) is None
    _write(file, {"auths": {REGISTRY: {"auth": LOGIN}}})
    assert _ask(auth) is not None


def test_without_a_setting_the_default_file_counts_and_then_what_docker_login_left(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    auth = Auth(default=file)
    assert _ask(auth) is None
    (tmp_path / ".docker").mkdir()
    _write(tmp_path / ".docker" / "config.json", {"auths": {REGISTRY: {"auth": LOGIN}}})
    assert _ask(auth) is not None
    _write(file, {"auths": {}})
    assert _ask(auth) is None


@pytest.mark.parametrize(
    ("config", "mode", "words"),
    [
        ("{}", 0o660, r"others than its owner may change it \(mode 0660\); chmod 600 ends that"),
        ("{}", 0o602, r"others than its owner may change it \(mode 0602\)"),
        ("{", 0o600, "it is not JSON"),
        ("[]", 0o600, "it is not what docker login writes"),
        ({"auths": {REGISTRY: "secret"}}, 0o600, f"for {REGISTRY}: it is not what docker login writes"),
        ({"auths": {REGISTRY: {"auth": "secret"}}}, 0o600, f"for {REGISTRY}: it is not what docker login writes"),
        ({"auths": []}, 0o600, None),
    ],
)
def test_a_file_that_cannot_be_trusted_or_read_is_refused_without_a_word_of_it(
    file: Path, config: object, mode: int, words: str | None
) -> None:
    auth = Auth(str(_write(file, config, mode)))
    if words is None:
        assert _ask(auth) is None
        return
    with pytest.raises(Transient, match=f"^cannot use {file}.*{words}") as refused:
        _ask(auth)
    assert "secret" not in str(refused.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_somebody_else_is_refused(file: Path) -> None:
    os.chown(_write(file, {}), 1000, 1000)
    with pytest.raises(Transient, match=r"it belongs to user 1000, who could change it; it must belong to root"):
        _ask(Auth(str(file)))


def test_a_file_that_is_named_must_be_there(file: Path) -> None:
    with pytest.raises(Transient, match=f"^cannot use {file}: it does not exist; agent.docker.auth_file names it$"):
        _ask(Auth(str(file)))


@pytest.mark.parametrize("config", [{"credHelpers": {REGISTRY: "fake"}}, {"credsStore": "fake"}])
def test_a_helper_is_asked_for_the_registry(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: dict[str, Any]) -> None:
    _helper(tmp_path, monkeypatch, f'read server; test "$1 $server" = "get {REGISTRY}" && echo \'{{"Username":"robot","Secret":"x"}}\'')
    assert _ask(Auth(str(_write(file, config)))) == {"ServerAddress": REGISTRY, "Username": "robot", "Password": "x"}


def test_a_helper_may_have_a_token_or_nothing(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    auth = Auth(str(_write(file, {"credsStore": "fake"})))
    _helper(tmp_path, monkeypatch, 'cat >/dev/null; echo \'{"Username":"<token>","Secret":"x"}\'')
    assert _ask(auth) == {"ServerAddress": REGISTRY, "IdentityToken": "x"}
    _helper(tmp_path, monkeypatch, "cat >/dev/null; echo credentials not found in native keychain; exit 1")
    assert _ask(auth) is None


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo no keychain; exit 3", "docker-credential-fake exited with code 3: no keychain"),
        ("echo '{}'", "docker-credential-fake did not answer with credentials"),
        ("echo hello", "docker-credential-fake did not answer with credentials"),
    ],
)
def test_a_helper_that_does_not_work_is_named(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, words: str) -> None:
    _helper(tmp_path, monkeypatch, f"cat >/dev/null; {script}")
    with pytest.raises(Transient, match=f"^cannot use {file} for {REGISTRY}: {words}$"):
        _ask(Auth(str(_write(file, {"credsStore": "fake"}))))


def test_a_helper_that_is_not_installed_is_named(file: Path) -> None:
    with pytest.raises(Transient, match=r"docker-credential-nowhere cannot be run: No such file or directory; is it installed"):
        _ask(Auth(str(_write(file, {"credsStore": "nowhere"}))))


def test_a_helper_that_hangs_is_ended_with_all_that_it_started(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARK", str(tmp_path))
    _helper(tmp_path, monkeypatch, "sleep 1000 & sleep 1000")
    began = time.monotonic()
    with pytest.raises(Transient, match=r"docker-credential-fake did not answer within 0\.3 s$"):
        _ask(Auth(str(_write(file, {"credsStore": "fake"})), patience=0.3))
    assert time.monotonic() - began < 5
    assert not [pid for pid in processes_with(f"MARK={tmp_path}") if pid != os.getpid()]
