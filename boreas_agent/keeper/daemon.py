"""The keeper as a program: a daemon of its own session and cgroup, so that the agent's end is not its end."""

from __future__ import annotations

import contextlib
import os
import socket
import time

from boreas_agent.keeper.kernel import PR_SET_CHILD_SUBREAPER, PR_SET_NAME, join, log, prctl
from boreas_agent.keeper.loop import Keeper

LINGER = 0.5  # seconds; what a run left behind may be our child for ever


def main(directory: str, name: str, cgroup: str = "") -> None:
    """Serve ``DIR/NAME.PID.sock``; says ``ready`` on standard output once it listens."""
    if os.fork():
        os._exit(0)
    os.setsid()
    os.umask(0o077)
    os.chdir("/")
    prctl(PR_SET_CHILD_SUBREAPER, 1)  # the orphans of a run are reaped even where nobody else would
    prctl(PR_SET_NAME, b"boreas-keeper")
    if cgroup:
        with contextlib.suppress(OSError):
            join(cgroup)
    folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    own_log, sock_name = f"{directory}/{name}.log", f"{name}.{os.getpid()}.sock"
    output = os.open(own_log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(output, 2)
    listener = _listen(folder, sock_name)
    os.write(1, b"ready\n")
    os.dup2(output, 1)
    os.close(output)
    log(f"keeper {os.getpid()} listens")
    Keeper(listener, own_log, cgroup.rpartition("/")[0]).serve()
    with contextlib.suppress(OSError):
        os.unlink(sock_name, dir_fd=folder)
    log(f"keeper {os.getpid()} ends: there is nothing to keep")
    if cgroup:
        _leave(cgroup)


def _listen(folder: int, name: str) -> socket.socket:
    """The socket appears under its name only when it can be connected to; the path to it may be a long one."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    draft = f"/proc/self/fd/{folder}/.{name}"
    listener.bind(draft)
    listener.listen(16)
    listener.setblocking(False)
    os.rename(draft, f"/proc/self/fd/{folder}/{name}")
    return listener


def _leave(cgroup: str) -> None:
    """Delete our cgroup (ROOT/boreas.slice/NODE/keeper), and those above it that are empty."""
    root = cgroup.rsplit("/", 3)[0]
    with contextlib.suppress(OSError):
        join(root)
        _await_children()
        while cgroup != root:
            os.rmdir(cgroup)
            cgroup = cgroup.rpartition("/")[0]


def _await_children() -> None:
    """The last stand-in is in our cgroup until it has torn down what it stood in for."""
    deadline = time.monotonic() + LINGER
    with contextlib.suppress(ChildProcessError):
        while time.monotonic() < deadline:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(0.002)
