"""The agent as it is installed: wheels of this checkout and of the commit before it, each in an environment of its own.

The environments share the dependencies of the one that runs the tests, so making one takes no network and no time.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
_PACKED = ("pyproject.toml", "README.md", "LICENSE")
_PACKAGES = ("boreas_agent", "migrations")


def this_source(folder: Path) -> Path:
    """A copy of what a wheel is made of, so that nothing is left in the checkout."""
    folder.mkdir(parents=True)
    for name in _PACKED:
        shutil.copy(ROOT / name, folder / name)
    for name in _PACKAGES:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def previous_source(folder: Path) -> tuple[Path, str]:
    """The same of the commit before, and which one that is; a clone without history has only this one."""
    archived = subprocess.run(["git", "-C", ROOT, "archive", "HEAD~1", *_PACKED, *_PACKAGES], capture_output=True, check=False)
    if archived.returncode != 0:
        return this_source(folder), "this commit (the clone has no history)"
    folder.mkdir(parents=True)
    subprocess.run(["tar", "-x", "-C", folder], input=archived.stdout, check=True)
    name = subprocess.run(["git", "-C", ROOT, "log", "-1", "--format=%h %s", "HEAD~1"], capture_output=True, text=True, check=True)
    return folder, name.stdout.strip()


def wheel(source: Path, folder: Path) -> Path:
    """Build it."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder), str(source)]
    built = subprocess.run(build, capture_output=True, text=True, timeout=120, check=False)
    assert built.returncode == 0, built.stderr
    (found,) = folder.glob("*.whl")
    return found


def environment(folder: Path, packed: Path) -> Path:
    """A virtual environment with that wheel in it; its Python. A wheel of pure Python needs no more than to be unpacked."""
    venv.create(folder, with_pip=False)
    site = next(folder.glob("lib/python3*/site-packages"))
    with zipfile.ZipFile(packed) as archive:
        archive.extractall(site)
    (site / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n")
    return folder / "bin" / "python"
