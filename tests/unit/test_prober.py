"""The prober on a real event loop, real ports, and commands that a simulated driver answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from boreas_agent.clock import SystemClock
from boreas_agent.errors import Unavailable
from boreas_agent.gate import Gate
from boreas_agent.model import Executed, Observed, Phase, Probed, Revision
from boreas_agent.prober import Prober
from boreas_agent.probing import Defaults
from tests.unit.test_planner import head, revision, seen, tried
from tests.waiting import eventually_async
from tests.world import FakeClock, FakeDriver, World


class Driver(FakeDriver):
    """Answers commands as the test says; counts them."""

    def __init__(self, answer: Callable[[], Executed]) -> None:
        super().__init__(World(FakeClock()), frozenset({"binary"}))
        self.answer = answer
        self.commands: list[Sequence[str]] = []

    async def execute(self, seen: Observed, command: Sequence[str], seconds: float) -> Executed:
        self.commands.append(command)
        return self.answer()


def prober(driver: FakeDriver | None = None, interval: float = 0.1) -> Prober:
    return Prober([driver or Driver(lambda: Executed(0))], Defaults(interval, 1, 3), SystemClock(), lambda: 0.0)


@asynccontextmanager
async def closing(one: Prober) -> AsyncIterator[Prober]:
    """Nothing is asked any more afterwards."""
    try:
        yield one
    finally:
        await one.close()
        served = ("_accept_connection", "port.<locals>.serve")  # by the server of the test
        assert not [task for task in others() if not any(name in repr(task) for name in served)]
        await eventually_async(at_rest)


def others() -> set[asyncio.Task[Any]]:
    return asyncio.all_tasks() - {asyncio.current_task()}


async def at_rest() -> bool:
    """The server of the test, too, has done with what was asked last."""
    return not others()


@asynccontextmanager
async def port(answer: Callable[[], str]) -> AsyncIterator[int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(f"HTTP/1.1 {answer()} x\r\nContent-Length: 0\r\n\r\n".encode())
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def now(of: Revision, replica: int = 0, **more: Any) -> Observed:
    """A run that has just begun."""
    return seen(of, replica, started=SystemClock().boottime(), **{"life": "1", "address": "127.0.0.1", **more})


async def becomes(one: Prober, of: Revision, observed: Sequence[Observed], right: Callable[[Probed], bool]) -> Probed:
    async def check() -> Probed | None:
        found = one.look(head(of), observed).get(0)
        return found if found is not None and right(found) else None

    found = await eventually_async(check)
    assert found is not None
    return found


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await work()

    asyncio.run(bounded())


def test_a_run_becomes_ready_loses_it_and_is_told_of_only_when_that_changes() -> None:
    async def work() -> None:
        status = "200"
        async with port(lambda: status) as number, closing(prober()) as one:
            of = revision(health={"readiness": {"http": {"port": number}, "interval_seconds": 0.1, "failure_threshold": 2}})
            observed, heard = [now(of)], one.events()
            assert not one.look(head(of), observed)[0].ready
            assert await anext(heard) == "web"
            assert one.look(head(of), observed)[0].ready
            status = "500"
            lost = await becomes(one, of, observed, lambda found: found.lost)
            assert lost.why == f"readiness probe failed 2 times: HTTP 500 from :{number}/"
            status = "200"
            await becomes(one, of, observed, lambda found: found.ready)
            told = 0
            with suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    async for _ in heard:
                        told += 1
            assert told <= 1, "five more good results are no news"
            await heard.aclose()  # type: ignore[attr-defined]

    run(work)


def test_the_others_are_asked_only_once_the_startup_probe_has_passed() -> None:
    async def work() -> None:
        driver = Driver(lambda: Executed(1))
        async with closing(prober(driver)) as one:
            quick = {"interval_seconds": 0.1, "failure_threshold": 1000}
            of = revision(
                health={
                    "startup": {"exec": {"command": ["startup"]}, **quick},
                    "readiness": {"exec": {"command": ["readiness"]}, **quick},
                    "liveness": {"exec": {"command": ["liveness"]}, **quick},
                }
            )
            one.look(head(of), [now(of)])
            await eventually_async(lambda: _true(len(driver.commands) > 3))
            assert set(driver.commands) == {("startup",)}
            driver.answer = lambda: Executed(0)
            await eventually_async(lambda: _true({("readiness",), ("liveness",)} <= set(driver.commands)))
            asked = driver.commands.count(("startup",))
            before = len(driver.commands)
            await eventually_async(lambda: _true(len(driver.commands) > before + 3))
            assert driver.commands.count(("startup",)) == asked

    run(work)


async def _true(value: bool) -> bool:
    return value


def test_what_does_not_run_any_more_or_is_another_run_is_not_asked_for_the_old_one() -> None:
    async def work() -> None:
        async with closing(prober()) as one:
            of = revision(health={"liveness": {"exec": {"command": ["x"]}, "interval_seconds": 0.1}})
            assert one.look(head(of), [now(of)])[0].run == "2.1"
            assert one.look(head(of), [now(of, life="2")])[0].run == "2.2"
            assert one.look(head(of), [now(of, phase=Phase.EXITED)]) == {}
            assert one.look(head(of), []) == {}
            one.look(head(of), [now(of)])
            one.forget("web")

    run(work)


def test_a_driver_that_cannot_answer_makes_nothing_unhealthy() -> None:
    async def work() -> None:
        asked = 0

        def away() -> Executed:
            nonlocal asked
            asked += 1
            raise Unavailable("the engine is away")

        async with closing(prober(Driver(away))) as one:
            of = revision(health={"liveness": {"exec": {"command": ["x"]}, "interval_seconds": 0.1, "failure_threshold": 1}})
            before = one.look(head(of), [now(of)])
            await eventually_async(lambda: _true(asked > 3))
            assert one.look(head(of), [now(of)]) == before

    run(work)


def test_what_an_earlier_agent_found_ready_stays_ready_and_is_asked_on() -> None:
    async def work() -> None:
        driver = Driver(lambda: Executed(3, "no\x1b more"))
        async with closing(prober(driver)) as one:
            of = revision(health={"readiness": {"exec": {"command": ["x"]}, "interval_seconds": 0.1}})
            observed = [now(of)]
            found = one.look(head(of), observed)[0]
            ready = Probed(found.run, found.by, started=True, ready=True, well_since=1.0)
            one.forget("web")
            known = head(of, tried(of, probed=ready), proven=of.instance_hash)
            assert one.look(known, observed)[0] == ready
            lost = await becomes(one, of, observed, lambda found: found.lost)
            assert lost.why == "readiness probe failed 3 times: the command exited with code 3: no� more"

    run(work)


def test_a_probe_that_hangs_delays_no_other_app_and_only_its_share_of_its_own() -> None:
    async def work() -> None:
        order: list[str] = []
        gate = Gate(size=4, share=2)
        release = asyncio.Event()

        async def hang(app: str) -> None:
            async with gate.place(app):
                order.append(f"{app} in")
                await release.wait()

        hanging = [asyncio.create_task(hang("slow")) for _ in range(10)]
        await eventually_async(lambda: _true(order == ["slow in", "slow in"]))
        async with asyncio.timeout(1):
            for app in ("a", "b"):
                async with gate.place(app):
                    order.append(app)
        assert order == ["slow in", "slow in", "a", "b"]
        hanging[-1].cancel()
        release.set()
        await asyncio.gather(*hanging, return_exceptions=True)
        assert order.count("slow in") == 9

    run(work)


def test_a_run_found_coming_up_is_asked_sooner_than_the_agents_own_interval() -> None:
    async def work() -> None:
        answers = iter([1] * 1)
        driver = Driver(lambda: Executed(next(answers, 0)))
        async with closing(prober(driver, interval=3600)) as one:
            of = revision(health={"readiness": {"exec": {"command": ["x"]}, "failure_threshold": 1}})
            assert (await becomes(one, of, [now(of)], lambda found: found.ready)).ready

    run(work)
