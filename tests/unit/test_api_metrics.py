"""What Prometheus reads: the apps as they are, and how the agent itself is doing."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from boreas_agent import __version__
from boreas_agent.model import Health, Status
from tests.unit.api_harness import RUNNING, SEED, Api, run, seed

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


async def scraped(api: Api) -> Samples:
    answer = await api.get("/metrics")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_apps_are_counted_by_status_and_each_has_its_level() -> None:
    async def test(api: Api) -> None:
        await api.apply(SEED)
        await api.apply(seed(app="bad"))
        await api.is_now("my-app", RUNNING)
        await api.is_now("bad", Health(0, Status.FAILED, "crash-looping"))
        found = await scraped(api)
        assert found["boreas_apps", (("status", "running"),)] == 1
        assert found["boreas_apps", (("status", "failed"),)] == 1
        assert found["boreas_apps", (("status", "degraded"),)] == 0
        assert found["boreas_app_level", (("app", "my-app"),)] == 100
        assert found["boreas_app_restarts_total", (("app", "bad"),)] == 0
        assert found["boreas_node_level", ()] == 0
        assert found["boreas_build_info", (("version", __version__),)] == 1
        assert found["boreas_store_writable", ()] == 1
        assert found["boreas_store_commit_seconds_count", ()] == 4
        assert found["process_resident_memory_bytes", ()] > 0

    run(test)


def test_the_series_of_an_app_end_with_it() -> None:
    async def test(api: Api) -> None:
        await api.apply(SEED)
        await api.send("DELETE", "/v1/apps/my-app")
        assert ("boreas_app_level", (("app", "my-app"),)) in await scraped(api)
        await api.is_gone("my-app")
        assert ("boreas_app_level", (("app", "my-app"),)) not in await scraped(api)

    run(test)


def test_no_label_but_the_apps_name_is_of_the_users_choosing() -> None:
    async def test(api: Api) -> None:
        for number in range(3):
            await api.apply(seed(version=f"v{number}"))
        names = {name for _, labels in await scraped(api) for name, _ in labels}
        assert names <= {"app", "status", "version", "le", "state"}
        assert {value for _, labels in await scraped(api) for name, value in labels if name == "version"} == {__version__}

    run(test)
