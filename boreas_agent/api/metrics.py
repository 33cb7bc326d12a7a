"""``GET /metrics``: what the agent knows, as Prometheus reads it.

What is asked for rarely is read off the heads at that moment, so a series ends with its app; only durations are kept as
they happen, by whoever takes that time. Apps are the only label whose values users choose: there are as many as they have apps.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from aiohttp import web
from prometheus_client import Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from boreas_agent import __version__
from boreas_agent.api.render import Surroundings, node_level
from boreas_agent.model import Head, Status

if TYPE_CHECKING:
    from boreas_agent.store.store import Store

Measures = Callable[[], Iterable[Metric]]
"""What the parts of the agent measure of themselves."""


class _Gathered(Collector):
    """What was read on the event loop, to be written as text beside it."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = list(metrics)
        self._process = ProcessCollector(registry=None)

    def collect(self) -> Iterator[Metric]:
        yield from self._metrics
        yield from self._process.collect()


async def exposition(store: Store, around: Surroundings | None, measures: Measures) -> web.Response:
    """All of it, in the text format that every version of Prometheus reads."""
    gathered = _Gathered([*_of_apps(store.heads), *_of_node(store, around), *measures()])
    text = await asyncio.to_thread(generate_latest, gathered)
    return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4, "Server": "boreas-agent"})


def _of_apps(heads: Mapping[str, Head]) -> Iterator[Metric]:
    found = Counter(head.health.status for head in heads.values())
    apps = GaugeMetricFamily("boreas_apps", "Apps by their status.", labels=["status"])
    for status in Status:
        apps.add_metric([status.value], found[status])
    level = GaugeMetricFamily("boreas_app_level", "Health level of an app's desired version, 0 to 100; 80 and more serve.", labels=["app"])
    restarts = CounterMetricFamily("boreas_app_restarts", "Restarts of the app's present revision.", labels=["app"])
    for name, head in heads.items():
        level.add_metric([name], head.health.level)
        restarts.add_metric([name], sum(attempts.restarts for attempts in head.attempts.values()))
    yield from (apps, level, restarts)
    yield GaugeMetricFamily("boreas_node_level", "The lowest level of all apps that are to be up.", value=node_level(heads))


def _of_node(store: Store, around: Surroundings | None) -> Iterator[Metric]:
    build = GaugeMetricFamily("boreas_build_info", "Which version of the agent this is.", labels=["version"])
    build.add_metric([__version__], 1)
    yield build
    yield GaugeMetricFamily("boreas_drained", "1 while the node is drained.", value=store.drained is not None)
    yield GaugeMetricFamily("boreas_store_writable", "1 unless the last commit failed.", value=store.writable())
    yield from store.commit_seconds.collect()
    if around is None:
        return
    docker, sample = around.node.docker, around.node.sample
    yield GaugeMetricFamily("boreas_docker_enabled", "1 where the agent is to use Docker.", value=docker.enabled)
    yield GaugeMetricFamily("boreas_docker_up", "1 while the Docker engine answers.", value=bool(docker.reachable))
    if sample is not None:
        yield GaugeMetricFamily("boreas_disk_total_bytes", "Size of the work dir's file system.", value=sample.disk_total)
        yield GaugeMetricFamily("boreas_disk_free_bytes", "Room on the work dir's file system.", value=sample.disk_free)
    if around.operator is not None:
        registered = around.operator.registered
        yield GaugeMetricFamily("boreas_operator_registered", "1 while the platform's controller knows this agent.", value=registered)
