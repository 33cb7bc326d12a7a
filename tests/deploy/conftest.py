"""What the tests of deployment share: a Debian, wheels of the dependencies, packages of two versions."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.machine import CACHE, NotHere, base, unpacked
from tests.engine.installation import ROOT

VERSIONS = ("0.0.8", "0.0.9")


def or_skip(error: NotHere) -> None:
    if os.environ.get("BOREAS_REQUIRE_DEPLOY") == "1":
        pytest.fail(str(error), pytrace=False)
    pytest.skip(str(error))


@pytest.fixture(scope="session")
def debian() -> Path:
    """The tar of a small Debian."""
    try:
        return base()
    except NotHere as error:
        or_skip(error)
        raise


@pytest.fixture(scope="session")
def debian_root(debian: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a folder."""
    assert debian.exists()
    return unpacked(tmp_path_factory.mktemp("debian"))


@pytest.fixture(scope="session")
def wheels(debian: Path) -> Path:
    """The locked dependencies as wheels for the Debian's Python, so that what follows needs no network."""
    assert debian.exists()
    locked = [ROOT / "requirements" / f"{name}.txt" for name in ("run", "build")]
    folder = CACHE / f"wheels-{hashlib.sha256(b''.join(file.read_bytes() for file in locked)).hexdigest()[:12]}"
    if not folder.exists():
        partial = folder.with_name(f"{folder.name}.partial")
        target = ["--python-version", "3.11", "--only-binary", ":all:", "--no-deps", "-d", str(partial)]
        requirements = [argument for file in locked for argument in ("-r", str(file))]
        run(sys.executable, "-m", "pip", "download", "-qq", "--require-hashes", *target, *requirements)
        partial.rename(folder)
    return folder


@pytest.fixture(scope="session")
def packages(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Debian packages of two versions, with the dependencies for the Debian's Python alone; they differ in nothing else."""
    folder = tmp_path_factory.mktemp("packages")
    wanted = {"PYTHON": sys.executable, "PYTHONS": "3.11", "WHEELS": str(wheels), "VERSION": VERSIONS[0]}
    first = Path(run(ROOT / "deploy" / "debian" / "build", folder, **wanted).strip())
    run("dpkg-deb", "--raw-extract", first, folder / "tree")
    control = folder / "tree" / "DEBIAN" / "control"
    control.write_text(control.read_text().replace(f"Version: {VERSIONS[0]}", f"Version: {VERSIONS[1]}"))
    second = folder / first.name.replace(*VERSIONS)
    run("dpkg-deb", "--root-owner-group", "-Znone", "--build", folder / "tree", second)
    return first, second


def run(*command: str | Path, **environment: str) -> str:
    """What it says; it must work."""
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
