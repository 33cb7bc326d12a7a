"""Gives up everything that unpacking does not need; there is no way back."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal

from boreas_agent.keeper.kernel import PR_SET_NAME, PR_SET_PDEATHSIG, prctl, require

MOST_MEMORY = 768 * 1024 * 1024
MOST_FILES = 256
_PR_SET_NO_NEW_PRIVS = 38
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same number on every architecture
_ENOUGH_ABI = 2  # the first in which files may be linked from one folder to another
_RIGHTS = {1: 13, 2: 14, 3: 15, 5: 16}  # how many rights of the file system an ABI knows
# write and read files, list folders, remove files; make folders, files and symbolic links; refer, truncate
_ALLOWED = sum(1 << bit for bit in (1, 2, 3, 5, 7, 8, 12, 13, 14))
_libc = ctypes.CDLL(None, use_errno=True)


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def confine(folder: str, owner: int | None, parent: int, most_bytes: int, seconds: int) -> None:
    """From here on ``folder``, which is the root now where that is possible, is all there is. Raises OSError."""
    os.chdir(folder)
    prctl(PR_SET_NAME, b"boreas-unpack")
    require(_PR_SET_NO_NEW_PRIVS, 1)
    locked = _landlock()
    if os.geteuid() == 0:
        with contextlib.suppress(*((PermissionError,) if locked else ())):  # a container may not allow it; then one wall has to do
            os.chroot(".")
    _limit(most_bytes, seconds)
    if owner is not None:
        os.setgroups([])
        os.setresgid(owner, owner, owner)
        os.setresuid(owner, owner, owner)
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # after the change of user, which undoes it
    if os.getppid() != parent:
        os._exit(1)


def _limit(most_bytes: int, seconds: int) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that the write fails, and that is said
    limits = {
        resource.RLIMIT_AS: MOST_MEMORY,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_FSIZE: most_bytes,
        resource.RLIMIT_NOFILE: MOST_FILES,
        resource.RLIMIT_NPROC: 0,
    }
    for which, wanted in limits.items():
        _, most = resource.getrlimit(which)
        limit = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
        hard = limit + 5 if which == resource.RLIMIT_CPU and most == resource.RLIM_INFINITY else limit  # so that it is told what it was
        resource.setrlimit(which, (limit, hard))


def _landlock() -> bool:
    """Nothing outside the current folder, no network, no signals to others; False where the kernel does not have it."""
    abi = _libc.syscall(_CREATE_RULESET, None, 0, 1)
    if abi < _ENOUGH_ABI:
        return False
    rights = max(count for known, count in _RIGHTS.items() if known <= abi)
    every = (1 << rights) - 1
    ruleset = _Ruleset(every, 0b11 if abi >= 4 else 0, 0b11 if abi >= 6 else 0)
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    rules = _libc.syscall(_CREATE_RULESET, ctypes.byref(ruleset), size, 0)
    here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        beneath = _Beneath(_ALLOWED & every, here)
        if rules < 0 or _libc.syscall(_ADD_RULE, rules, 1, ctypes.byref(beneath), 0) or _libc.syscall(_RESTRICT_SELF, rules, 0):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "landlock")
    finally:
        os.close(here)
        if rules >= 0:
            os.close(rules)
    return True
