"""What the documents list is what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from boreas_agent.cli.main import cli
from boreas_agent.spec import BinaryPkg, DockerPkg, ScriptPkg

ROOT = Path(__file__).parents[2]


def named(*documents: str) -> set[str]:
    """The names in code style in them."""
    text = "".join((ROOT / document).read_text() for document in documents)
    return set(re.findall(r"`([a-z_]+)`", text))


@pytest.mark.parametrize("model", [DockerPkg, BinaryPkg, ScriptPkg])
def test_every_field_is_documented(model: type[DockerPkg | BinaryPkg | ScriptPkg]) -> None:
    documents = ("docs/fields.md", "docs/containers.md") if model is DockerPkg else ("docs/fields.md",)
    assert set(model.model_fields) - {"type"} <= named(*documents)


def test_every_command_is_in_the_readme() -> None:
    table = re.findall(r"^\| (`.*?) \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    listed = {found for cell in table for found in re.findall(r"`(?:boreas-agent \[)?([a-z]+)", cell)}
    assert listed == set(cli.commands)
