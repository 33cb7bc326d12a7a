"""What the keeper asks of the kernel, and where it says so."""

from __future__ import annotations

import contextlib
import ctypes
import os
import time

PR_SET_PDEATHSIG, PR_SET_NAME, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 15, 36, 38
_KEEP_SIZE, _PUNCH_HOLE, _COLLAPSE_RANGE = 1, 2, 8
_IN_MODIFY, _IN_ATTRIB, _IN_DELETE_SELF, _IN_MOVE_SELF, _IN_ONESHOT = 0x2, 0x4, 0x400, 0x800, 0x80000000
_WRITTEN = _IN_MODIFY | _IN_ATTRIB | _IN_DELETE_SELF | _IN_MOVE_SELF  # what has another name less, or none, changes in its attributes
_DEFAULT_ACTION = ctypes.create_string_buffer(64)  # struct kernel_sigaction: handler SIG_DFL, nothing else
libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


def prctl(option: int, value: int | bytes) -> bool:
    """The system call; whether it worked. Where it is a precaution that does not matter."""
    return bool(libc.prctl(option, ctypes.c_char_p(value) if isinstance(value, bytes) else ctypes.c_ulong(value), 0, 0, 0) == 0)


def require(option: int, value: int) -> None:
    """The same where it was promised. Raises OSError."""
    if not prctl(option, value):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def default_signals() -> None:
    """Undo what this process inherited for the signals that the C library keeps for itself (32, 33) and will not touch.

    A parent of the agent may have ignored them, and whoever is started would inherit that.
    """
    call = {"x86_64": 13, "aarch64": 134}.get(os.uname().machine)
    if call is not None:
        for number in (32, 33):
            libc.syscall(call, number, _DEFAULT_ACTION, None, 8)


def punch(fd: int, end: int) -> bool:
    """Free the disk space of everything before offset ``end``; False where the file system cannot."""
    return bool(libc.fallocate(fd, _KEEP_SIZE | _PUNCH_HOLE, 0, end) == 0)


def collapse(fd: int, end: int) -> bool:
    """Take everything before offset ``end`` out of the file, so that what follows begins it; False where the file system cannot."""
    return bool(libc.fallocate(fd, _COLLAPSE_RANGE, 0, end) == 0)


def inotify() -> int:
    """A descriptor for :func:`tell_of_writing`, -1 where there are too many of them; it does not block and no program inherits it."""
    return int(libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))


def tell_of_writing(fd: int, path: str) -> int:
    """Have ``fd`` tell once when the file is written to, deleted or moved; the number that it then names (inotify(7)), -1: it cannot."""
    return int(libc.inotify_add_watch(fd, os.fsencode(path), ctypes.c_uint32(_WRITTEN | _IN_ONESHOT)))


def tell_no_more(fd: int, number: int) -> None:
    """Nobody asks any more."""
    libc.inotify_rm_watch(fd, number)


def start_ticks() -> int:
    """When this process began, in clock ticks since boot: with the pid and the boot id, its identity."""
    with open("/proc/self/stat", "rb") as stat:
        return int(stat.read().rpartition(b")")[2].split()[19])


def boot_id() -> str:
    """Identifies this boot of the machine."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def boottime() -> float:
    """Seconds since boot, including suspend."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def sync(path: str) -> None:
    """Make a file or folder durable."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def join(cgroup: str) -> None:
    """Enter the cgroup whose folder this is."""
    fd = os.open(f"{cgroup}/cgroup.procs", os.O_WRONLY)
    try:
        os.write(fd, b"0")
    finally:
        os.close(fd)


def oom_kills(cgroup: str) -> int:
    """How many of the group's processes were killed for its memory; 0 where the group does not count them."""
    for name in ("memory.events", "memory.oom_control"):
        with contextlib.suppress(OSError, ValueError, IndexError), open(f"{cgroup}/{name}", encoding="ascii") as file:
            return int(file.read().partition("oom_kill ")[2].split()[0])
    return 0


def log(message: str) -> None:
    """One line in the keeper's own log."""
    with contextlib.suppress(OSError):
        os.write(2, f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {message}\n".encode("utf-8", "backslashreplace"))
