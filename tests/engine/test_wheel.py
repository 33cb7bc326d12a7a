"""The wheel: everything is in it, and it works elsewhere without the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOT_SHIPPED = {"__pycache__"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that nothing is left in the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    for name in ("boreas_agent", "migrations"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns(*NOT_SHIPPED))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder), str(source)]
    built = subprocess.run(build, capture_output=True, text=True, timeout=120, check=False)
    assert built.returncode == 0, built.stderr
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel unpacked where nothing else is; a wheel of pure Python needs no more than that to be installed."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def run(installed: Path, *arguments: str) -> str:
    """Run Python with the installed package ahead of this checkout, elsewhere."""
    command = [sys.executable, "-P", *arguments]
    done = subprocess.run(
        command,
        cwd=installed.parent,
        env=os.environ | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_source_file_is_in_the_wheel(wheel):
    packed = set(zipfile.ZipFile(wheel).namelist())
    sources = [path for name in ("boreas_agent", "migrations") for path in (ROOT / name).rglob("*") if path.is_file()]
    wanted = {str(path.relative_to(ROOT)) for path in sources if not NOT_SHIPPED & set(path.parts)}
    wanted = {f"boreas_agent/{name}" if name.startswith("migrations/") else name for name in wanted}
    assert wanted - packed == set()
    assert "boreas_agent/py.typed" in packed
    assert any(name.endswith("/licenses/LICENSE") for name in packed)


def test_tests_and_benchmarks_are_not_in_the_wheel(wheel):
    assert {name.split("/")[0].split("-")[0] for name in zipfile.ZipFile(wheel).namelist()} == {"boreas_agent"}


def test_both_commands_are_declared(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
        declared = archive.read(name).decode()
    assert "boreas-agent = boreas_agent.cli.main:main" in declared
    assert "operator-pm-agent = boreas_agent.cli.main:main" in declared


def test_the_installed_command_runs_elsewhere(installed):
    assert run(installed, "-m", "boreas_agent", "--version").startswith("boreas-agent ")
    assert str(installed) in run(installed, "-c", "import boreas_agent; print(boreas_agent.__file__)")


def test_the_installed_package_makes_its_database_with_its_own_migrations(installed, tmp_path):
    program = f"""
import asyncio
from pathlib import Path
import boreas_agent.migrations
from boreas_agent.clock import SystemClock
from boreas_agent.store.store import Store
async def main():
    store = await Store.open(Path({str(tmp_path / "agent.db")!r}), SystemClock())
    await store.close()
asyncio.run(main())
print(boreas_agent.migrations.__file__)
"""
    assert str(installed) in run(installed, "-c", program)
    asked = run(installed, "-m", "boreas_agent", "sql", "--work-dir", str(tmp_path), "-o", "json", "select app from v_status")
    assert asked == "[]\n"
