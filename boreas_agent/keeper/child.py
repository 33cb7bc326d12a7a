"""A child of the keeper, from fork to exec: waits for a request, claims the run, becomes its program."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import time

from boreas_agent.keeper.kernel import (
    PR_SET_NO_NEW_PRIVS,
    PR_SET_PDEATHSIG,
    boottime,
    default_signals,
    join,
    prctl,
    require,
    start_ticks,
    sync,
)
from boreas_agent.keeper.stand_in import share

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

_CHANNEL = 3  # the descriptor that leads to the keeper; exec closes it
_OPENED = 4  # the descriptor of the file that the request wants opened before the user changes


class Refused(Exception):
    """The program could not be executed, and why."""


def child(channel: int, keeper: tuple[int, int], boot: str, cgroup: str | None, folder: str) -> NoReturn:
    """Wait for a request on ``channel`` and become its program; what is reported there, see :func:`become`.

    ``folder`` is somewhere on the file system of the folders that requests will name.
    """
    try:
        draft = _prepare(channel, keeper[0], folder)
        joined = cgroup if cgroup and _joined(cgroup) else None
        identity = {"pid": os.getpid(), "start": start_ticks(), "boot": boot, "keeper": keeper, "cgroup": joined}
        _rehearse(_draft(folder))
        become(_request(_CHANNEL), identity, draft)
    except BaseException as error:  # noqa: BLE001 - a child must never return into the keeper's loop
        _report(error=f"cannot start the process: {error!r}")
    os._exit(127)


def _prepare(channel: int, keeper_pid: int, folder: str) -> int | None:
    """All that can be done before the request is known; the draft of the claim, which the stand-in has open too.

    So that exec, which closes it, need not wait until the file of a draft that was of no use is deleted.
    """
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != keeper_pid:
        os._exit(0)
    gc.disable()
    if channel != _CHANNEL:
        os.dup2(channel, _CHANNEL, inheritable=False)
    os.closerange(_CHANNEL + 1, os.sysconf("SC_OPEN_MAX"))
    draft = _draft(folder)
    share(_CHANNEL)  # before there is a session that it would be part of
    set_out()
    return draft


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


def _draft(folder: str) -> int | None:
    """A file without a name, for the claim: making one takes longer than all else that a claim needs. None where that cannot be."""
    try:
        return os.open(folder, os.O_TMPFILE | os.O_WRONLY, 0o600)
    except OSError:
        return None


def _rehearse(draft: int | None) -> None:
    """Go through the motions while nobody waits: the first time, every page that is touched has to be copied."""
    sample = {
        "env": {f"NAME_{number}": "value" for number in range(20)},
        "program": "/dev/null/",
        "argv": ["/", "x"],
        "cwd": "/",
        "user": None,
        "opens": None,
        "set_up": {"umask": 0o022, "rlimits": [], "no_new_privs": False},
        "groups": [],
        "sync": [],
        "durable": True,
        "blank": ["/dev", "/blank"],
        "moves": [],
        "writes": [["/blank/null", "x" * 1000]],
        "run": 1,
        "folder": "/blank/folder",
    }
    its, ours = os.pipe()
    os.write(ours, json.dumps(sample).encode() + b"\n")
    request = _request(its)
    os.close(ours)
    os.close(its)
    _lay_out(request)
    _limit(request)
    _redirect(_place(request, "/blank/null"), 1)
    for place in ({}, {"blank": None, "folder": "/proc/self/fd"}):
        with contextlib.suppress(OSError):
            _claim(request | place, {"pid": os.getpid()}, draft)
    with contextlib.suppress(Refused):
        execute(request)


def _request(channel: int) -> dict[str, Any]:
    line = b""
    while not line.endswith(b"\n"):
        part = os.read(channel, 65536)
        if not part:
            os._exit(0)  # the keeper has ended, or wants no more runs
        line += part
    request: dict[str, Any] = json.loads(line)
    return request


def _report(**message: Any) -> None:
    with contextlib.suppress(OSError):
        os.write(_CHANNEL, json.dumps(message).encode() + b"\n")


def become(request: dict[str, Any], identity: dict[str, Any], draft: int | None) -> None:
    """Claim the run and execute its program; returns only where that failed.

    Reports ``error`` (nothing was claimed), ``claimed`` (by somebody else), or ``claim``, perhaps followed by ``failed``.
    """
    try:
        _lay_out(request)
        identity["cgroup"] = _limit(request) or identity["cgroup"]
        sizes = {name: _redirect(_place(request, request[name]), target) for target, name in enumerate(("stdout", "stderr"), 1)}
        claim = _claim(request, identity | sizes, draft)
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
    """Rename folders of the blank, and write what belongs there."""
    for old, new in request["moves"]:
        os.rename(_place(request, old), _place(request, new))
    for path, text in request["writes"]:
        _write(_place(request, path), _encoded(text), durable=False)


def _place(request: dict[str, Any], path: str) -> str:
    """Where ``path`` is now, which the blank will have become part of."""
    if request["blank"] is None:
        return path
    blank, becomes = request["blank"]
    return f"{blank}{path[len(becomes) :]}" if path.startswith(f"{becomes}/") else path


def _write(path: str, content: bytes, *, durable: bool) -> None:
    """Into a file that is there and empty.

    It is not cut, empty as it is: the kernel would take that for a rewrite, and have the disk begin with it at once.
    """
    fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW)
    try:
        os.write(fd, content)
        if durable:
            os.fsync(fd)
    finally:
        os.close(fd)


def _limit(request: dict[str, Any]) -> str | None:
    """Make the groups that limit the run, and enter them; the one that takes the place of the child's own."""
    own = None
    for group in request["groups"]:
        path = f"{group['path']}.{request['run']}"
        os.makedirs(path, exist_ok=True)
        for name, value in group["files"].items():
            fd = os.open(f"{path}/{name}", os.O_WRONLY)
            try:
                os.write(fd, value.encode())
            except OSError as error:
                raise OSError(error.errno, f"{error.strerror} (writing {value})", f"{path}/{name}") from error
            finally:
                os.close(fd)
        join(path)
        own = path if group["tree"] else own
    return own


def _redirect(path: str, target: int) -> int:
    """Connect ``target`` to the end of a log; its size now."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    os.dup2(fd, target)
    size = os.fstat(fd).st_size
    os.close(fd)
    return size


def _claim(request: dict[str, Any], content: dict[str, Any], draft: int | None) -> dict[str, Any] | None:
    """Create the claim; None where the run, or a later one, is somebody else's. Where the request says so, it is durable on return."""
    content |= {"wall": time.time(), "boottime": boottime()}
    text = json.dumps(content).encode()
    if request["blank"] is not None:
        _move_in(request, text)
    elif not _put(request, text, draft):
        return None
    if request["durable"]:
        for path in (request["folder"], *request["sync"]):
            sync(path)
    return content


def _move_in(request: dict[str, Any], text: bytes) -> None:
    """The blank becomes what it was made for, with the claim in it: where anything is already, this fails, and nothing was claimed."""
    _write(_place(request, _name(request)), text, durable=request["durable"])
    os.rename(*request["blank"])


def _name(request: dict[str, Any]) -> str:
    return f"{request['folder']}/{request['run']}.claim"


def _put(request: dict[str, Any], text: bytes, draft: int | None) -> bool:
    """Put the claim into a folder that may hold others; False where the run is somebody else's.

    The name appears with its whole content at once. Claims of old runs are deleted in time, so a request
    from long ago is recognised by the later claims beside it.
    """
    folder, run, name = request["folder"], request["run"], _name(request)
    try:
        fd = _named(draft, name, text) or _linked(f"{folder}/.{run}.{os.getpid()}", name, text)
    except FileExistsError:
        return False
    try:
        if max(int(entry[:-6]) for entry in os.listdir(folder) if entry.endswith(".claim")) > run:
            os.unlink(name)
            return False
        if request["durable"]:
            os.fsync(fd)
    finally:
        os.close(fd)
    return True


def _named(draft: int | None, name: str, text: bytes) -> int | None:
    """Write the draft and give it its name; None where that cannot be done, for whatever reason but that the name is taken."""
    if draft is None:
        return None
    try:
        os.write(draft, text)
        os.link(
            f"/proc/self/fd/{draft}", name, src_dir_fd=draft, follow_symlinks=True
        )  # the path is absolute: src_dir_fd only asks for linkat
    except FileExistsError:
        raise
    except OSError:
        os.close(draft)
        return None
    return draft


def _linked(draft: str, name: str, text: bytes) -> int:
    """The same with a draft beside it."""
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(fd, text)
        os.link(draft, name)
    except BaseException:
        os.close(fd)
        raise
    finally:
        os.unlink(draft)
    return fd


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
        set_up = request["set_up"]
        if set_up["rlimits"]:
            import resource  # noqa: PLC0415  # costs time and memory, and hardly anybody asks for it

            for number, soft, hard in set_up["rlimits"]:
                step = f"set the resource limit {number} to {soft}:{hard}"
                resource.setrlimit(number, (soft, hard))
        os.umask(set_up["umask"])
        if request["user"]:
            step = f"become the user {request['user']}"
            uid, gid, groups = request["user"]
            for output in (1, 2):
                os.fchown(output, uid, gid)  # so that the program may open /dev/stdout and /dev/stderr by name
            os.setgroups(groups)
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
        if set_up["no_new_privs"]:
            step = "give up new privileges"
            require(PR_SET_NO_NEW_PRIVS, 1)
        step = f"execute {request['opens'] or program}"
        environment = {_encoded(name): _encoded(value) for name, value in request["env"].items()}
        os.execve(program, [_encoded(word) for word in request["argv"]], environment)  # noqa: S606
    except FileNotFoundError as error:
        why = "the interpreter it names does not exist" if step.startswith("execute") and os.path.exists(program) else error.strerror
        raise Refused(f"cannot {step}: {why}") from error
    except OSError as error:
        raise Refused(f"cannot {step}: {error.strerror}") from error
    except ValueError as error:  # what ``resource`` makes of some of the kernel's errors
        raise Refused(f"cannot {step}: {error}") from error


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
