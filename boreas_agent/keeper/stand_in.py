"""Keeps the address space of a child alive beyond its exec, so that the program does not wait until it is torn down.

Tearing down an interpreter's takes half a millisecond, longer than all else that exec does. It is done by whoever has it last: so a
second process, the stand-in, shares the child's and lets go of it a moment after the child has, beside the program. It runs
no Python: the C library leads it from one call to the next, along a chain of contexts.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal

from boreas_agent.keeper.kernel import libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_CLONE_VM, _CLONE_PARENT = 0x100, 0x8000
_CONTEXT = 8192  # more than a ucontext_t of any machine
_STACK = 16384
_kept: list[Any] = []  # what the stand-in runs on must stay where it is


def share(channel: int) -> None:
    """Have a stand-in that ends when this process executes something or ends; ``channel`` stays this process's alone.

    Its parent is ours, so no program ever finds it among its children, and it minds no signal that can be blocked. All signals
    are blocked here, too, on return. Where the C library has no contexts, there is no stand-in.
    """
    with contextlib.suppress(AttributeError, OSError):
        first, clone = libc.setcontext, libc.clone
        its, mine = os.pipe()  # ``mine`` is closed by exec, and by whatever death
        signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())  # a context keeps what was blocked when it was made
        try:
            modest = (libc.sched_setscheduler, 0, os.SCHED_BATCH, _room(16))  # whoever wakes it goes first; struct sched_param, all zero
            calls = _chain((libc.close, channel), (libc.close, mine), modest, (libc.read, its, _room(16), 1), (libc._exit, 0))
            clone(first, ctypes.c_void_p(_room(_STACK) + _STACK), _CLONE_VM | _CLONE_PARENT, calls)
        finally:
            os.close(its)


def _chain(*calls: tuple[Any, ...]) -> ctypes.c_void_p:
    """A context for each call, that leads to the next; the first one."""
    after = 0
    for function, *arguments in reversed(calls):
        context = _room(_CONTEXT)
        libc.getcontext(ctypes.c_void_p(context))
        # struct ucontext_t begins alike on all 64-bit machines: flags, link, stack
        for offset, value in ((8, after), (16, _room(_STACK)), (32, _STACK)):
            ctypes.c_size_t.from_address(context + offset).value = value
        libc.makecontext(ctypes.c_void_p(context), function, len(arguments), *map(ctypes.c_long, arguments))
        after = context
    return ctypes.c_void_p(after)


def _room(size: int) -> int:
    """The address of some memory."""
    _kept.append(ctypes.create_string_buffer(size + 16))
    return (ctypes.addressof(_kept[-1]) + 15) & ~15
