"""What lies in deploy/ says what the code does."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from boreas_agent import configuration, strictyaml
from boreas_agent.cli.documents import read
from boreas_agent.configuration import load_settings
from boreas_agent.settings import Settings
from boreas_agent.spec import parse_submission

DEPLOY = Path(__file__).parents[2] / "deploy"
LINE = re.compile(r"^ *(#? *)([a-z_]+):")


def leaves(values: dict[str, Any], prefix: str = "") -> set[str]:
    found = set()
    for name, value in values.items():
        found |= leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}"}
    return found


def test_the_configuration_file_names_every_setting_and_no_other() -> None:
    written = strictyaml.loads((DEPLOY / "agent.yaml").read_bytes())
    assert leaves(written) == leaves(Settings().model_dump())


def test_the_configuration_file_shows_the_defaults() -> None:
    assert load_settings({"--config": str(DEPLOY / "agent.yaml")}, {}) == load_settings({}, {}, DEPLOY / "nothing")


def test_the_configuration_file_names_every_variable_and_flag_and_explains_every_setting() -> None:
    text = (DEPLOY / "agent.yaml").read_text()
    named = {*configuration.ENVIRONMENT, *configuration.FLAGS}
    assert {name for name in named if not re.search(rf"{name}\b", text)} == set()
    lines = text.splitlines()
    values = [line for line in lines if re.match(r" +[a-z_]+: \S", line)]
    assert [line for line in values if "#" not in line] == []


@pytest.mark.parametrize("file", sorted((DEPLOY / "examples").iterdir()), ids=lambda file: file.name)
def test_every_example_can_be_submitted(file: Path) -> None:
    for document in read([str(file)]):
        parse_submission(document.body)


def test_there_is_an_example_of_every_type() -> None:
    documents = read([str(DEPLOY / "examples")])
    assert {parse_submission(document.body).pkg.type for document in documents} == {"docker", "binary", "script"}


def test_the_dockerfile_is_where_the_platforms_document_says() -> None:
    assert (DEPLOY.parent / "deployments/docker/operator-pm-agent.Dockerfile").samefile(DEPLOY / "docker/operator-pm-agent.Dockerfile")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_the_unit_is_right_in_the_eyes_of_systemd(tmp_path: Path) -> None:
    unit = tmp_path / "boreas-agent.service"
    unit.write_text((DEPLOY / "systemd" / unit.name).read_text().replace("/usr/bin/boreas-agent", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False)
    ours = [line for line in (done.stdout + done.stderr).splitlines() if unit.stem in line]
    assert (done.returncode, ours) == (0, [])


@pytest.mark.parametrize(
    "option",
    [
        "ProtectSystem",
        "PrivateTmp",
        "NoNewPrivileges",
        "SystemCallFilter",
        "CapabilityBoundingSet",
        "LimitNOFILE",
        "OOMScoreAdjust",
        "User",
        "Nice",
    ],
)
def test_the_unit_sets_nothing_that_apps_would_inherit(option: str) -> None:
    assert not re.search(rf"^{option}=", (DEPLOY / "systemd" / "boreas-agent.service").read_text(), re.MULTILINE)


def test_the_compose_file_says_what_the_documented_line_says() -> None:
    agent = strictyaml.loads((DEPLOY / "compose.yaml").read_bytes())["services"]["agent"]
    assert agent["restart"] == "unless-stopped"
    assert agent["ports"] == ["8081:8081"]
    assert agent["volumes"] == ["/var/run/docker.sock:/var/run/docker.sock", "/var/lib/boreas-agent:/var/lib/boreas-agent"]
    assert (DEPLOY / agent["build"]["context"] / agent["build"]["dockerfile"]).exists()
