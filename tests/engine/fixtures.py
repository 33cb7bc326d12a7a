"""Fixtures around a real Docker engine, for every test of the project (registered in ``tests/conftest.py``).

Where no engine can be had the tests skip and say why; with BOREAS_REQUIRE_DOCKER=1 they fail instead.
"""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from boreas_agent.clock import SystemClock
from boreas_agent.drivers.docker import DockerDriver
from tests.engine.engine import Engine, why_not
from tests.engine.proxy import Proxy
from tests.engine.registry import Registry


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """A private engine for the whole session, with ``engine.image`` in it."""
    reason = why_not()
    if reason is not None:
        _give_up(reason)
    engine = Engine()
    try:
        try:
            engine.start()
            engine.make_images()
        except RuntimeError as error:
            _give_up(str(error))
        yield engine
    finally:
        engine.close()


def _give_up(reason: str) -> None:
    if os.environ.get("BOREAS_REQUIRE_DOCKER") == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def registry(engine: Engine) -> Iterator[Registry]:
    """A registry that holds ``registry.image``; the engine does not have that image until it pulls it."""
    registry = Registry(engine)
    yield registry
    registry.close()


@pytest.fixture
def registry_proxy(registry: Registry) -> Iterator[Proxy]:
    """A proxy before the registry; an image of the registry has another reference through it."""
    proxy = Proxy(("127.0.0.1", 0), ("127.0.0.1", registry.port))
    yield proxy
    proxy.close()


@pytest.fixture
def clean_engine(engine: Engine) -> Iterator[Engine]:
    """The engine, without any container afterwards."""
    yield engine
    engine.remove_containers()


@pytest.fixture
def docker_proxy(clean_engine: Engine) -> Iterator[Proxy]:
    """A proxy before the engine's socket; pass ``docker_proxy.socket`` as the agent's socket path."""
    with tempfile.TemporaryDirectory(prefix="boreas-proxy-") as folder:  # short: a socket's path has at most 107 bytes
        proxy = Proxy(Path(folder) / "docker.sock", Path(clean_engine.socket))
        yield proxy
        proxy.close()


@pytest.fixture
def docker_driver_factory(clean_engine: Engine, tmp_path: Path) -> Callable[[], DockerDriver]:
    """Makes drivers of one identity: each is what an agent on this node would have after another restart."""
    identity = str(uuid.uuid4())
    return lambda: DockerDriver(clean_engine.socket, identity, SystemClock(), work_dir=tmp_path / "node")
