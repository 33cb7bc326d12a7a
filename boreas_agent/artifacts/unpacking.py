"""The agent's end of the unpacker (see ``boreas_agent.unpacker``). All of it blocks, so it runs in threads."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from boreas_agent.artifacts.cache import NoRoom
from boreas_agent.artifacts.limits import Limits
from boreas_agent.errors import Missing, Transient
from boreas_agent.spec import Artifact

NOBODY = 65534
"""Who the unpacker is. Nobody else of this name can reach what it fills: the work dir is closed to all but the agent."""
_PROGRAM = Path(__file__).parent.parent / "unpacker" / "__main__.py"
_LOOK_SECONDS = 0.2
_LATE = 124
"""The status of one that was given up, as of timeout(1)."""
_ZSTD = b"\x28\xb5\x2f\xfd"


def owner() -> int | None:
    """Who unpacks; None: only an agent that runs as root can become somebody else."""
    return NOBODY if os.geteuid() == 0 else None


def unpack(archive: Path, folder: Path, artifact: Artifact, limits: Limits, room: Callable[[], int], stop: threading.Event) -> None:  # noqa: PLR0913, PLR0917
    """Fill ``folder``, which is made; ends early when ``stop`` is set. Raises Missing (the archive's fault), Transient, OSError.

    What is there afterwards was written by a process that may have been taken over by the archive: look at it (``tree.adopt``).
    """
    folder.mkdir(mode=0o700)
    who, most = owner(), min(limits.max_unpacked_bytes, max(0, room()))
    if who is not None:
        os.chown(folder, who, who)
    with archive.open("rb") as file:
        request = {
            "folder": str(folder),
            "owner": who,
            "kind": artifact.unpack,
            "strip": artifact.strip_components,
            "most_bytes": most,
            "most_entries": limits.most_entries,
            "ratio": limits.ratio,
            "seconds": limits.unpack_seconds,
            "parent": os.getpid(),
            "libraries": _libraries() if os.pread(file.fileno(), 4, 0) == _ZSTD else "",
        }
        answer, status = _run(request, file.fileno(), limits, room, stop)
    if "error" in answer:
        raise _fault(answer, short=most < limits.max_unpacked_bytes)
    if status == -signal.SIGKILL:
        raise Transient("cannot unpack it: its unpacker was killed")
    if status in (-signal.SIGXCPU, _LATE):
        raise Missing(f"cannot unpack it: it takes more than {limits.unpack_seconds} s")
    if status or "entries" not in answer:
        raise Missing(f"cannot unpack it: its unpacker broke (status {status})")


def _libraries() -> str:
    found = find_spec("zstandard")
    assert found is not None
    assert found.origin is not None
    return str(Path(found.origin).parent.parent)


def _run(
    request: dict[str, Any], archive: int, limits: Limits, room: Callable[[], int], stop: threading.Event
) -> tuple[dict[str, Any], int]:
    """The answer and the exit status. This thread is the unpacker's parent in fate: when it ends, so does the unpacker."""
    command = [sys.executable, "-I", "-S", "-X", "utf8", str(_PROGRAM), json.dumps(request)]
    deadline = time.monotonic() + 2 * limits.unpack_seconds
    with subprocess.Popen(
        command,
        stdin=archive,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env={"PATH": os.defpath},
        start_new_session=True,
    ) as process:
        try:
            while True:
                try:
                    said, _ = process.communicate(timeout=_LOOK_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    if stop.is_set():
                        raise Transient("unpacking it was given up") from None
                    if room() < 0:
                        raise NoRoom("there is no room to unpack it, beyond agent.artifacts.min_free_bytes") from None
                    if time.monotonic() > deadline:
                        return {}, _LATE
        finally:
            process.kill()
    try:
        return dict(json.loads(said)), process.returncode
    except ValueError:
        return {}, process.returncode or 1


def _fault(answer: dict[str, Any], *, short: bool) -> Missing | Transient:
    if answer.get("errno") in (errno.ENOSPC, errno.EDQUOT) or (answer.get("large") and short):
        return NoRoom("there is no room to unpack it; it is tried again once there is")
    if answer.get("errno") in (errno.EIO, errno.EPERM, errno.EAGAIN):
        return Transient(f"cannot unpack it: {answer['error']}")
    return Missing(f"cannot unpack it: {answer['error']}")
