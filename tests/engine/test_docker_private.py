"""Private registries: who we are is in a file, and what goes wrong says where that is."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from boreas_agent.clock import SystemClock
from boreas_agent.drivers.docker import DockerDriver
from boreas_agent.errors import Missing, Transient
from boreas_agent.model import Phase
from tests.engine.engine import Engine
from tests.engine.registry import PASSWORD, USER, Registry
from tests.engine.wants import Make, only, using, want

pytestmark = pytest.mark.docker

NODE = "a2f6ad0a-0000-4000-8000-000000000000"


@pytest.fixture(scope="module")
def guarded(engine: Engine) -> Iterator[Registry]:
    """A registry that only USER gets into."""
    registry = Registry(engine, guarded=True)
    yield registry
    registry.close()


@pytest.fixture
def private(guarded: Registry, clean_engine: Engine) -> Iterator[str]:
    """An image of that registry, which is not here before and after."""
    yield guarded.image
    clean_engine.remove_containers()
    if any(guarded.image in (image["RepoTags"] or ()) for image in clean_engine.client.images()):
        clean_engine.client.remove_image(guarded.image)


def _login(file: Path, host: str, password: str = PASSWORD) -> None:
    file.write_text(json.dumps({"auths": {host: {"auth": base64.b64encode(f"{USER}:{password}".encode()).decode()}}}))
    file.chmod(0o600)


def _make(engine: Engine, file: Path) -> Make:
    return lambda: DockerDriver(engine.socket, NODE, SystemClock(), auth_file=str(file))


def test_who_is_let_in_gets_the_image_and_renewed_credentials_count_at_once(
    private: str, guarded: Registry, clean_engine: Engine, tmp_path: Path
) -> None:
    file = tmp_path / "auth.json"
    _login(file, guarded.host, "wrong")

    async def work(driver: DockerDriver) -> None:
        with pytest.raises(Transient, match=rf"^cannot pull {private}: .*\(credentials for {guarded.host} are looked for in {file}\)$"):
            await driver.prepare(want(image=private))
        _login(file, guarded.host)
        await driver.prepare(want(image=private))
        await driver.start(want(image=private), 0)
        assert (await only(driver)).phase is Phase.RUNNING

    using(_make(clean_engine, file), work)


def test_a_helper_may_know_who_we_are(
    private: str, guarded: Registry, clean_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = json.dumps({"ServerURL": guarded.host, "Username": USER, "Secret": PASSWORD})
    program = tmp_path / "docker-credential-fake"
    program.write_text(f"#!/bin/sh\nread server\ntest $server = {guarded.host} && echo '{answer}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    file = tmp_path / "auth.json"
    file.write_text(json.dumps({"credHelpers": {guarded.host: "fake"}}))
    using(_make(clean_engine, file), lambda driver: driver.prepare(want(image=private)))


def test_nobody_gets_in_without_credentials_or_with_a_file_that_others_can_change(
    private: str, guarded: Registry, clean_engine: Engine, tmp_path: Path
) -> None:
    file = tmp_path / "auth.json"
    file.write_text("{}")
    file.chmod(0o600)

    async def work(driver: DockerDriver) -> None:
        with pytest.raises((Missing, Transient), match=rf"credentials for {guarded.host} are looked for in {file}"):
            await driver.prepare(want(image=private))
        _login(file, guarded.host)
        file.chmod(0o666)
        with pytest.raises(Transient, match=rf"^cannot pull {private}: cannot use {file}: others than its owner may change it"):
            await driver.prepare(want(image=private))

    using(_make(clean_engine, file), work)
