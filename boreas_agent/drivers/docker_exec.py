"""Commands beside a container. The engine runs them, but ends none: who asks for one that hangs must end it.

Closing the connection leaves the command running, and the engine's API has no call to kill it. The engine does tell its
pid, though; where that is a process of the container here, it is killed with its session; so is what an agent that died has left
running, which is found by its environment. Where the engine lives
behind another kernel's wall that cannot be done, and so no second command is begun for the same purpose while the first one runs.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

from boreas_agent.drivers import procfs
from boreas_agent.drivers.docker_api import Refused
from boreas_agent.drivers.docker_streams import Streams, frames
from boreas_agent.errors import Transient, Unavailable
from boreas_agent.model import Executed, Observed

TAIL_BYTES = 4096
_PROC = Path("/proc")
_ENGINE_SECONDS = 5.0
"""What the engine may take for its own part of it; slower than that, and nobody knows how the command went."""
_NOTICE_SECONDS = 0.5
"""What the engine may take to notice that a command has ended."""
_MOST_HANGING = 1024
_MARK = "BOREAS_COMMAND"


class Commands:
    """Remembers what it could not end."""

    def __init__(self, streams: Streams, identity: str) -> None:
        self._streams = streams
        self._mark = f"{_MARK}={identity}"
        self._hanging: dict[tuple[str, tuple[str, ...]], str] = {}

    async def run(self, seen: Observed, command: Sequence[str], seconds: float) -> Executed:
        """See ``base.Driver.execute``."""
        what, key = f"run a command beside {seen.name}", (seen.ref, tuple(command))
        try:
            hanging = self._hanging.get(key)
            if hanging is not None and (await self._inspect(hanging, what)).get("Running"):
                return Executed(None, problem="the command was not done in time, and still runs since")
            self._hanging.pop(key, None)
            ref = await self._create(seen, command, what)
            deadline = asyncio.get_running_loop().time() + seconds
            try:
                output, in_time = await self._output(ref, what, seconds)
            except asyncio.CancelledError:
                with suppress(Transient):
                    await self._kill(seen, key, ref, int((await self._inspect(ref, what)).get("Pid") or 0))
                raise
            found = await self._ended(ref, what, deadline) if in_time else await self._inspect(ref, what)
            if found.get("Running"):
                await self._kill(seen, key, ref, int(found.get("Pid") or 0))
                return Executed(None, output, f"the command did not end within {seconds:g} s")
        except Refused as error:
            if error.status in (400, 126, 127) or "OCI runtime exec failed" in error.explanation:
                return Executed(None, problem=f"cannot execute the command: {error.explanation}")
            raise Unavailable(str(error)) from error  # it has ended, or is paused: the next look at it tells
        code = found.get("ExitCode")
        return Executed(int(code), output) if code is not None else Executed(None, output, "the command has no exit code")

    async def end_strays(self) -> None:
        """What an earlier agent of this node has left running."""
        await asyncio.to_thread(_end_strays, self._mark)

    async def _create(self, seen: Observed, command: Sequence[str], what: str) -> str:
        body = {"AttachStdout": True, "AttachStderr": True, "Cmd": list(command), "Env": [self._mark]}
        return str((await self._short("POST", f"/containers/{seen.ref}/exec", what, body))["Id"])

    async def _ended(self, ref: str, what: str, deadline: float) -> dict[str, Any]:
        """What the engine says of a command whose output has ended: it may go on without, and the engine may need a moment to notice."""
        loop, pause = asyncio.get_running_loop(), 0.02
        deadline = max(deadline, loop.time() + _NOTICE_SECONDS)
        while (found := await self._inspect(ref, what)).get("Running") and loop.time() < deadline:
            await asyncio.sleep(pause)
            pause = min(pause * 2, _NOTICE_SECONDS)
        return found

    async def _inspect(self, ref: str, what: str) -> dict[str, Any]:
        try:
            return await self._short("GET", f"/exec/{ref}/json", what)
        except Refused as error:
            if error.status == 404:
                return {}  # the engine was restarted
            raise

    async def _short(self, method: str, path: str, what: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        try:
            async with asyncio.timeout(_ENGINE_SECONDS):
                return await self._streams.ask(method, path, what, body)
        except TimeoutError:
            raise Unavailable(f"cannot {what}: Docker did not answer within {_ENGINE_SECONDS:g} s") from None

    async def _output(self, ref: str, what: str, seconds: float) -> tuple[str, bool]:
        """The end of what the command wrote, and whether it ended in time."""
        kept = bytearray()
        chunks = self._streams.chunks(f"/exec/{ref}/start", what, {"Detach": False})
        try:
            async with asyncio.timeout(seconds), aclosing(chunks), aclosing(frames(chunks)) as payloads:
                async for _, payload in payloads:
                    kept += payload
                    del kept[:-TAIL_BYTES]
        except TimeoutError:
            return kept.decode("utf-8", "replace"), False
        return kept.decode("utf-8", "replace"), True

    async def _kill(self, seen: Observed, key: tuple[str, tuple[str, ...]], ref: str, pid: int) -> None:
        """Also what it started, as far as that stayed in its session."""
        if not await asyncio.to_thread(_kill_session, pid, seen.ref):
            if len(self._hanging) >= _MOST_HANGING:
                self._hanging.pop(next(iter(self._hanging)))
            self._hanging[key] = ref


def _end_strays(mark: str) -> None:
    for process in procfs.processes():
        if procfs.has_environment(process.pid, mark) and _came_from_outside(process):
            _end_session(process)


def _came_from_outside(process: procfs.Stat) -> bool:
    """It was put into its container, not started by anything there: so it is the command itself, not what that has left on purpose."""
    try:
        return (_PROC / f"{process.pid}/ns/pid").readlink() != (_PROC / f"{process.parent}/ns/pid").readlink()
    except OSError:
        return False


def _end_session(leader: procfs.Stat) -> None:
    """The process, and the others of its session where that is its own."""
    others = [one for one in procfs.processes() if one.session == leader.pid != one.pid] if leader.session == leader.pid else []
    for process in (leader, *others):
        procfs.send(process, signal.SIGKILL)


def _kill_session(pid: int, container: str) -> bool:
    """Whether ``pid`` is a process of that container here, and so could be killed, with its session where that is its own."""
    leader = procfs.stat(pid) if pid > 0 else None
    try:
        if leader is None or container not in (_PROC / f"{pid}/cgroup").read_text(encoding="utf-8"):
            return False
    except OSError:
        return False
    _end_session(leader)
    return True
