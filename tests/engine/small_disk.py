"""A disk that is soon full."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.waiting import eventually


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A new folder that holds no more than ``size``, in the words of mount(8); only root can have one."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "boreas-test", str(folder)], check=True)
    try:
        yield folder
    finally:
        eventually(
            lambda: subprocess.run(["umount", str(folder)], capture_output=True, check=False).returncode == 0
        )  # the keeper goes last
