"""The image, built and run by the documented lines: docker apps on the host's engine outlive it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from boreas_agent.drivers.docker_spec import labels
from tests.deploy.conftest import run
from tests.engine.engine import Engine
from tests.engine.installation import ROOT, this_source
from tests.engine.node import Node
from tests.engine.wants import want
from tests.waiting import eventually

pytestmark = pytest.mark.docker

BASE = "boreas-test/debian:1"
IMAGE = "boreas/operator-pm-agent"
MOST_BYTES = 120 * 1024 * 1024
EXAMPLE = {
    "app": "my-app",
    "version": "v1.0.0",
    "pkg": {
        "type": "docker",
        "image": "my-app:v1.0.0",
        "command": ["/app/my-app"],
        "args": ["--config", "/app/config.yaml"],
        "environment": {"ENV": "production"},
        "volumes": [{"host_path": "/data", "container_path": "/app/data", "read_only": False}],
        "ports": [{"host_port": 8080, "container_port": 8080, "protocol": "tcp"}],
    },
}
MY_APP = r"""
FROM boreas-test/base:1
RUN mkdir -p /app/data \
    && printf '#!/bin/sh\necho "$ENV $*" >/app/data/started\nexec httpd -f -p 8080 -h /app/data\n' >/app/my-app \
    && chmod 755 /app/my-app
"""


class Docker:
    """The command line, on the tests' engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._environment = os.environ | {"DOCKER_HOST": f"unix://{engine.socket}", "DOCKER_BUILDKIT": "0"}

    def __call__(self, *arguments: str | Path) -> str:
        return run("docker", *arguments, **self._environment).strip()

    def build(self, context: Path, tag: str) -> None:
        dockerfile = "deployments/docker/operator-pm-agent.Dockerfile"  # as the platform documents it; a link to deploy
        done = subprocess.run(
            ["docker", "build", "--network", "none", "--build-arg", f"BASE={BASE}", "-f", dockerfile, "-t", tag, "."],
            cwd=context,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]

    def size(self, image: str) -> int:
        return int(self("image", "inspect", "--format", "{{.Size}}", image))

    def identity_of(self, container: str) -> str:
        return self("inspect", "--format", "{{.Id}} {{.State.Pid}} {{.RestartCount}}", container)


@pytest.fixture(scope="module")
def docker(engine: Engine, debian: Path, wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Docker:
    """With the image in two versions, built from a copy of the checkout that has the wheels beside it."""
    docker = Docker(engine)
    docker("import", debian, BASE)
    context = this_source(tmp_path_factory.mktemp("image") / "context")
    for name in ("requirements", "deploy"):
        shutil.copytree(ROOT / name, context / name)
    (context / "deployments").symlink_to("deploy")
    shutil.copytree(wheels, context / "wheels")
    shutil.copy(ROOT / ".dockerignore", context)
    docker.build(context, IMAGE)
    version = context / "boreas_agent" / "__init__.py"
    version.write_text(version.read_text().replace("__version__ = ", '__version__ = "99.0"  # was '))
    docker.build(context, f"{IMAGE}:99.0")
    (context / "my-app").mkdir()
    (context / "my-app" / "Dockerfile").write_text(MY_APP)
    docker("build", "--network", "none", "-t", "my-app:v1.0.0", context / "my-app")
    return docker


class InContainer(Node):
    """The agent as the documented line starts it; what differs is whose socket, folder and port it is."""

    def __init__(self, work_dir: Path, docker: Docker) -> None:
        super().__init__(work_dir)
        self.docker = docker

    def run(self, *options: str, image: str = IMAGE, arguments: tuple[str, ...] = (), port: int = 8081) -> None:
        name = ("--name", "boreas-agent", *options)
        volumes = ("-v", f"{self.docker.engine.socket}:/var/run/docker.sock", "-v", f"{self.work_dir}:/var/lib/boreas-agent")
        self.docker("run", "-d", *name, "-p", f"127.0.0.1:{self.port}:{port}", *volumes, image, *arguments)
        self.answers()

    def answers(self) -> None:
        eventually(lambda: self.get("/v1/ready")[0] == 200, 60)

    def healthcheck(self) -> str:
        command = json.loads(self.docker("inspect", "--format", "{{json .Config.Healthcheck.Test}}", "boreas-agent"))
        return self.docker("exec", "boreas-agent", *command[1:])


@pytest.fixture
def node(tmp_path: Path, docker: Docker, clean_engine: Engine) -> Iterator[InContainer]:
    assert clean_engine is docker.engine
    (tmp_path / "node").mkdir()
    yield InContainer(tmp_path / "node", docker)
    docker("rm", "--force", "boreas-agent")


def example(node: Node, data: Path) -> int:
    """The original's JSON with a folder and a port that are free here; where it is served."""
    spec = json.loads(json.dumps(EXAMPLE))
    spec["pkg"]["volumes"][0]["host_path"] = str(data)
    spec["pkg"]["ports"][0]["host_port"] = port = Node(data).port
    status, answer = node.request("POST", "/v1/apply", spec)
    assert (status, answer["success"]) == (200, True)
    return port


def test_the_image_is_small_and_its_commands_are_there(docker: Docker) -> None:
    added = docker.size(IMAGE) - docker.size(BASE)
    print(f"the image adds {added / 2**20:.1f} MiB to its base")
    assert added < MOST_BYTES
    assert docker("run", "--rm", IMAGE, "--version").startswith("boreas-agent ")
    assert docker("run", "--rm", "--entrypoint", "operator-pm-agent", f"{IMAGE}:99.0", "--version") == "boreas-agent 99.0"
    assert "PIP_" not in docker("history", "--no-trunc", IMAGE)


def test_the_example_converges_on_the_hosts_engine_and_outlives_restart_and_replacement(node: InContainer, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    node.run("--restart", "unless-stopped")
    port = example(node, data)
    assert node.reaches("my-app", "running")["healthy"]["level"] == 100
    assert (data / "started").read_text() == "production --config /app/config.yaml\n"
    app = Node(data)
    app.port = port
    (data / "answer").write_text('{"from": "the host"}')
    assert app.get("/answer") == (200, {"from": "the host"})
    (container,) = node.docker("ps", "--quiet", "--no-trunc", "--filter", "label=boreas.app=my-app").splitlines()
    before, status = node.docker.identity_of(container), node.status("my-app")

    node.docker("restart", "boreas-agent")
    node.answers()
    assert (node.docker.identity_of(container), node.status("my-app")) == (before, status)
    node.docker("rm", "--force", "boreas-agent")
    node.run("--restart", "unless-stopped", image=f"{IMAGE}:99.0")
    assert (node.docker.identity_of(container), node.status("my-app")) == (before, status)
    versions = [message.split()[1] for (message,) in node.sql("SELECT message FROM v_events WHERE kind = 'AgentStarted' ORDER BY id")]
    assert (len(versions), versions[-1]) == (3, "99.0")
    assert node.sql("SELECT message FROM v_events WHERE kind = 'NoRestartPolicy'") == []
    assert node.docker("inspect", "--format", "{{.Id}}", "boreas-agent")


def test_a_healthcheck_finds_the_agent_whatever_its_port(node: InContainer) -> None:
    node.run(arguments=("--port", "9000"), port=9000)
    assert node.healthcheck() == "HTTP/1.0 200 OK"


def test_a_container_that_would_not_come_back_is_warned_about(node: InContainer) -> None:
    node.run()
    (told,) = eventually(lambda: node.sql("SELECT message FROM v_events WHERE kind = 'NoRestartPolicy'"))
    assert told[0].startswith("the agent's own container boreas-agent has the restart policy 'no': ")
    assert "docker update --restart unless-stopped boreas-agent" in told[0]
    assert told[0] in node.docker("logs", "boreas-agent")


def test_the_agent_leaves_its_own_container_alone_even_where_it_carries_its_labels(node: InContainer) -> None:
    identity = "3f0e0a46-0b0e-4c0e-9d3c-0a4a4b6f2c11"
    (node.work_dir / "identity").write_text(f"{identity}\n")
    node.work_dir.chmod(0o700)
    carried = labels(want("agent"), identity)
    node.run(*(word for name, value in carried.items() for word in ("--label", f"{name}={value}")))
    before = node.docker.identity_of("boreas-agent")
    node.docker("restart", "boreas-agent")
    node.answers()
    assert node.get("/v1/status")[1]["apps"] == []
    assert node.docker.identity_of("boreas-agent").split()[0] == before.split()[0]


def test_a_binary_lives_in_the_agents_container_and_is_back_after_its_restart(node: InContainer) -> None:
    node.run()
    node.apply("clock", type="binary", command=["/bin/sleep", "3600"], rollout={"min_healthy_seconds": 0.2})
    node.reaches("clock", "running")
    assert "sleep 3600" in node.docker("top", "boreas-agent")
    node.docker("restart", "boreas-agent")
    node.answers()
    eventually(lambda: node.status("clock")["healthy"]["level"] >= 80)
    assert node.exits("clock")[0][3].startswith("exit status unknown")
    assert "sleep 3600" in node.docker("top", "boreas-agent")
