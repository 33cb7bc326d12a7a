"""A child of the keeper, from fork to exec: waits for a request, claims the run, becomes its program."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import time

from boreas_agent.keeper.kernel import PR_SET_PDEATHSIG, boottime, default_signals, join, prctl, start_ticks, sync

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

_CHANNEL = 3  # the descriptor that leads to the keeper; exec closes it
_OPENED = 4  # the descriptor of the file that the request wants opened before the user changes


class Refused(Exception):
    """The program could not be executed, and why."""


def child(channel: int, keeper: tuple[int, int], boot: str, cgroup: str | None) -> NoReturn:
    """Wait for a request on ``channel`` and become its program; what is reported there, see :func:`become`."""
    try:
        _prepare(channel, keeper[0])
        joined = cgroup if cgroup and _joined(cgroup) else None
        identity = {"pid": os.getpid(), "start": start_ticks(), "boot": boot, "keeper": keeper, "cgroup": joined}
        _rehearse()
        become(_request(), identity)
    except BaseException as error:  # noqa: BLE001 - a child must never return into the keeper's loop
        _report(error=f"cannot start the process: {error!r}")
    os._exit(127)


def _prepare(channel: int, keeper_pid: int) -> None:
    """All that can be done before the request is known."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != keeper_pid:
        os._exit(0)
    gc.disable()
    set_out()
    if channel != _CHANNEL:
        os.dup2(channel, _CHANNEL, inheritable=False)
    os.closerange(_CHANNEL + 1, os.sysconf("SC_OPEN_MAX"))


def set_out() -> None:
    """What every program finds: signals as they are by default, a session of its own, no input."""
    signal.set_wakeup_fd(-1)
    for number in range(1, signal.NSIG):
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)  # programs expect SIGPIPE, which Python ignores
    default_signals()
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    os.setsid()
    os.umask(0o022)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)


def _joined(cgroup: str) -> bool:
    """Make and enter a cgroup. Not while anybody waits: it takes the kernel tens of milliseconds."""
    for _ in range(3):
        try:
            os.makedirs(cgroup, exist_ok=True)
            join(cgroup)
        except FileNotFoundError:
            continue  # somebody who tidies up deleted it before we were in
        except OSError:
            return False
        return True
    return False


def _rehearse() -> None:
    """Go through the motions while nobody waits: the first time, every page that is touched has to be copied."""
    sample = {
        "env": {f"NAME_{number}": "value" for number in range(20)},
        "argv": ["/", "x"],
        "sync": [],
        "durable": True,
        "moves": [],
        "writes": [],
        "run": 1,
        "folder": "/proc/self/fd",
    }
    request = json.loads(json.dumps(sample)) | {"program": "/dev/null/", "cwd": "/", "user": None, "opens": None}
    _lay_out(request)
    _redirect(os.devnull, 1)
    with contextlib.suppress(OSError):
        _claim(request, {"pid": os.getpid()})
    with contextlib.suppress(Refused):
        execute(request)


def _request() -> dict[str, Any]:
    line = b""
    while not line.endswith(b"\n"):
        part = os.read(_CHANNEL, 65536)
        if not part:
            os._exit(0)  # the keeper has ended, or wants no more runs
        line += part
    request: dict[str, Any] = json.loads(line)
    return request


def _report(**message: Any) -> None:
    with contextlib.suppress(OSError):
        os.write(_CHANNEL, json.dumps(message).encode() + b"\n")


def become(request: dict[str, Any], identity: dict[str, Any]) -> None:
    """Claim the run and execute its program; returns only where that failed.

    Reports ``error`` (nothing was claimed), ``claimed`` (by somebody else), or ``claim``, perhaps followed by ``failed``.
    """
    try:
        _lay_out(request)
        sizes = {"stdout": _redirect(request["stdout"], 1), "stderr": _redirect(request["stderr"], 2)}
        claim = _claim(request, identity | sizes)
    except OSError as error:
        return _report(error=f"cannot prepare {error.filename2 or error.filename or request['folder']}: {error.strerror}")
    if claim is None:
        return _report(claimed=True)
    _report(claim=claim)
    prctl(PR_SET_PDEATHSIG, 0)  # from here on the run is the app's, whatever becomes of the keeper
    if not identity["cgroup"]:
        request["env"] |= request["mark"]
    try:
        execute(request)
    except Refused as error:
        _report(failed=str(error))
    return None


def _lay_out(request: dict[str, Any]) -> None:
    """Put folders that were made ahead in their place, and write what belongs there."""
    for old, new in request["moves"]:
        os.rename(old, new)
    for path, text in request["writes"]:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        try:
            os.write(fd, _encoded(text))
        finally:
            os.close(fd)


def _redirect(path: str, target: int) -> int:
    """Connect ``target`` to the end of a log; its size now."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    os.dup2(fd, target)
    size = os.fstat(fd).st_size
    os.close(fd)
    return size


def _claim(request: dict[str, Any], content: dict[str, Any]) -> dict[str, Any] | None:
    """Create the claim; None where the run, or a later one, is somebody else's.

    The name appears with its whole content at once. Claims of old runs are deleted in time, so a request
    from long ago is recognised by the later claims beside it. Where the request says so, it is durable on return.
    """
    folder, run = request["folder"], request["run"]
    content |= {"wall": time.time(), "boottime": boottime()}
    draft, name = f"{folder}/.{run}.{content['pid']}", f"{folder}/{run}.claim"
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(fd, json.dumps(content).encode())
        os.link(draft, name)
        if max(int(entry[:-6]) for entry in os.listdir(folder) if entry.endswith(".claim")) > run:
            os.unlink(name)
            return None
        os.unlink(draft)  # before the sync: one commit of the journal for all three
        if request["durable"]:
            os.fsync(fd)
    except FileExistsError:
        return None
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft)
        os.close(fd)
    if request["durable"]:
        for path in (folder, *request["sync"]):
            sync(path)
    return content


def execute(request: dict[str, Any]) -> NoReturn:
    """Enter the working directory, become the user, execute; raises Refused.

    In this order, because the user need not be able to reach what lies in the agent's own folder.
    """
    program = request["program"]
    step = f"enter the working directory {request['cwd']}"
    try:
        os.chdir(request["cwd"])
        step = f"execute {request['opens'] or program}"
        if request["opens"]:
            _open(request["opens"])
        if request["user"]:
            step = f"become the user {request['user']}"
            uid, gid, groups = request["user"]
            for output in (1, 2):
                os.fchown(output, uid, gid)  # so that the program may open /dev/stdout and /dev/stderr by name
            os.setgroups(groups)
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
        step = f"execute {request['opens'] or program}"
        environment = {_encoded(name): _encoded(value) for name, value in request["env"].items()}
        os.execve(program, [_encoded(word) for word in request["argv"]], environment)  # noqa: S606
    except FileNotFoundError as error:
        why = "the interpreter it names does not exist" if step.startswith("execute") and os.path.exists(program) else error.strerror
        raise Refused(f"cannot {step}: {why}") from error
    except OSError as error:
        raise Refused(f"cannot {step}: {error.strerror}") from error


def _open(path: str) -> None:
    """Open the program or script at ``_OPENED``; an interpreter still needs it after exec, a binary does not."""
    fd = os.open(path, os.O_RDONLY)
    interpreted = os.pread(fd, 4, 0) != b"\x7fELF"
    if fd == _OPENED:
        os.set_inheritable(fd, interpreted)
    else:
        os.dup2(fd, _OPENED, inheritable=interpreted)
        os.close(fd)


def _encoded(text: str) -> bytes:
    """Text as the bytes that were meant, whatever the locale."""
    return text.encode("utf-8", "surrogateescape")
