"""Which settings a SIGHUP changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from boreas_agent.errors import StartupError
from boreas_agent.reload import Reloading, differences
from boreas_agent.settings import Settings


def settings(**sections: object) -> Settings:
    return Settings.model_validate(sections)


def reload(old: Settings, *reads: Settings, keys: tuple[str, ...] = ("log.level", "server.trusted_networks")) -> list[tuple[object, ...]]:
    """What came of reading each of ``reads`` in turn: changed, waiting, what was applied."""

    async def scenario() -> list[tuple[object, ...]]:
        applied: list[str] = []
        upcoming = iter(reads)
        hooks: dict[str, Callable[[Settings], None]] = {key: lambda _, key=key: applied.append(key) for key in keys}  # type: ignore[misc]
        reloading = Reloading(old, lambda: next(upcoming), hooks)
        found: list[tuple[object, ...]] = []
        for _ in reads:
            outcome = await reloading.reload()
            found.append((outcome.changed, outcome.waiting, tuple(applied)))
            applied.clear()
        return found

    return asyncio.run(scenario())


def test_nothing_changed_does_nothing() -> None:
    assert reload(settings(), settings()) == [((), (), ())]


def test_every_difference_is_named_by_its_key() -> None:
    new = settings(server={"port": 1}, agent={"docker": {"enabled": False}, "history": {"days": 1}})
    assert set(differences(settings(), new)) == {"server.port", "agent.docker.enabled", "agent.history.days"}


def test_what_waits_for_a_restart_is_named_every_time_and_what_changed_only_once() -> None:
    new = settings(log={"level": "debug"}, server={"port": 1})
    assert reload(settings(), new, new) == [(("log.level",), ("server.port",), ("log.level",)), ((), ("server.port",), ())]


def test_a_setting_that_is_put_back_is_changed_back() -> None:
    new = settings(log={"level": "debug"})
    assert reload(settings(), new, settings()) == [(("log.level",), (), ("log.level",)), (("log.level",), (), ("log.level",))]


def test_a_hook_for_a_section_stands_for_all_keys_in_it() -> None:
    new = settings(log={"level": "debug", "format": "text"})
    assert reload(settings(), new, keys=("log",)) == [(("log.level", "log.format"), (), ("log",))]


def test_a_wrong_configuration_changes_nothing_and_the_next_right_one_does() -> None:
    async def scenario() -> None:
        applied: list[str] = []
        reads = iter((StartupError("cannot start: agent.yaml: unknown key x"), settings(log={"level": "debug"})))

        def read() -> Settings:
            upcoming = next(reads)
            if isinstance(upcoming, StartupError):
                raise upcoming
            return upcoming

        reloading = Reloading(settings(), read, {"log.level": lambda new: applied.append(new.log.level)})
        outcome = await reloading.reload()
        assert (outcome.ok, outcome.message) == (
            False,
            "the configuration is wrong, the old one stays in force: agent.yaml: unknown key x",
        )
        assert applied == []
        assert (await reloading.reload()).changed == ("log.level",)
        assert applied == ["debug"]

    asyncio.run(scenario())


@pytest.mark.parametrize("key", ["server.trusted_networks"])
def test_a_hook_that_cannot_apply_its_part_leaves_the_settings_in_force(key: str) -> None:
    async def scenario() -> None:
        def refuse(_: Settings) -> None:
            raise StartupError("cannot start: no")

        reloading = Reloading(settings(), lambda: settings(server={"trusted_networks": []}), {key: refuse})
        assert not (await reloading.reload()).ok
        assert not (await reloading.reload()).ok

    asyncio.run(scenario())
