"""What the keeper asks of the kernel, and where it says so."""

from __future__ import annotations

import contextlib
import ctypes
import os
import time

PR_SET_PDEATHSIG, PR_SET_NAME, PR_SET_CHILD_SUBREAPER = 1, 15, 36
_KEEP_SIZE, _PUNCH_HOLE = 1, 2
_DEFAULT_ACTION = ctypes.create_string_buffer(64)  # struct kernel_sigaction: handler SIG_DFL, nothing else
_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


def prctl(option: int, value: int | bytes) -> None:
    """The system call. Failures are ignored: each use is a precaution."""
    _libc.prctl(option, ctypes.c_char_p(value) if isinstance(value, bytes) else ctypes.c_ulong(value), 0, 0, 0)


def default_signals() -> None:
    """Undo what this process inherited for the signals that the C library keeps for itself (32, 33) and will not touch.

    A parent of the agent may have ignored them, and whoever is started would inherit that.
    """
    call = {"x86_64": 13, "aarch64": 134}.get(os.uname().machine)
    if call is not None:
        for number in (32, 33):
            _libc.syscall(call, number, _DEFAULT_ACTION, None, 8)


def punch(fd: int, end: int) -> bool:
    """Free the disk space of everything before offset ``end``; False where the file system cannot."""
    return bool(_libc.fallocate(fd, _KEEP_SIZE | _PUNCH_HOLE, 0, end) == 0)


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


def log(message: str) -> None:
    """One line in the keeper's own log."""
    with contextlib.suppress(OSError):
        os.write(2, f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {message}\n".encode("utf-8", "backslashreplace"))
