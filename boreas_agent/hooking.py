"""Runs hooks: each within its time, told of where it takes long, and of one app only so many at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from boreas_agent.drivers.base import Driver
from boreas_agent.errors import BoreasError, HookFailed, Unavailable
from boreas_agent.gate import Gate
from boreas_agent.model import Executed, Observed, Phase, PostStart, PreStart
from boreas_agent.spec import Hook

Tell = Callable[[str], Awaitable[None]]
"""Is told in a few words what goes on."""
SLOW_SECONDS = 0.5
"""What takes longer than this is worth a word in the status before it has ended."""
_LONGEST_OUTPUT = 500


class Hooking:
    """For one event loop."""

    def __init__(self) -> None:
        self._gate = Gate(size=400, share=32)  # each takes two descriptors of the runner, which has 1024

    async def pre_start(self, driver: Driver, action: PreStart, patience: float | None, tell: Tell) -> None:
        """Returns once it has succeeded; ``patience``: seconds that the deployment has left. Raises HookFailed, as ``Driver.run_once``."""
        want, hook = action.want, action.hook
        seconds = hook.timeout_seconds if patience is None else min(hook.timeout_seconds, patience)
        run = driver.run_once(want, hook.exec.command, seconds)
        if why := await self._why_not(want.name.app, "pre_start", run, tell):
            raise HookFailed(f"cannot start {want.name.app}: its pre_start hook failed: {why}")

    async def post_start(self, driver: Driver, action: PostStart, tell: Tell) -> str | None:
        """Why it failed, or the empty string; None where the run has ended meanwhile, so that it says nothing. As ``Driver.execute``."""
        seen, hook = action.seen, action.hook
        run = driver.execute(seen, hook.exec.command, hook.timeout_seconds)
        try:
            why = await self._why_not(seen.name.app, "post_start", run, tell)
        except Unavailable:
            if await _still_runs(driver, seen):
                raise
            return None
        if why and not await _still_runs(driver, seen):
            return None
        return f"post_start hook failed: {why}" if why else ""

    async def pre_stop(self, driver: Driver, seen: Observed, hook: Hook, tell: Tell) -> str:
        """Why it failed, or the empty string; never raises, for however it goes, the instance is stopped."""
        run = driver.execute(seen, hook.exec.command, hook.timeout_seconds)
        try:
            return await self._why_not(seen.name.app, "pre_stop", run, tell)
        except BoreasError as error:
            return str(error)

    async def _why_not(self, app: str, kind: str, run: Coroutine[Any, Any, Executed], tell: Tell) -> str:
        work = asyncio.ensure_future(self._placed(app, run))
        try:
            finished, _ = await asyncio.wait({work}, timeout=SLOW_SECONDS)
            if not finished:
                await tell(f"running {kind} hook")
            return (await work).why_not(_LONGEST_OUTPUT)
        finally:
            if not work.done():
                work.cancel()
                await asyncio.wait({work})
            run.close()  # where it was given up before it had a place

    async def _placed(self, app: str, run: Coroutine[Any, Any, Executed]) -> Executed:
        async with self._gate.place(app):
            return await run


async def _still_runs(driver: Driver, seen: Observed) -> bool:
    found = await driver.observe(seen.name.app)
    return any(one.run_key == seen.run_key and one.name == seen.name and one.phase is Phase.RUNNING for one in found)
