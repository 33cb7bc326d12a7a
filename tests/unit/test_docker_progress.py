"""How far a pull is said to be."""

from __future__ import annotations

from typing import Any

import pytest

from boreas_agent.drivers.docker_progress import Progress

BEGIN = [{"status": "Pulling fs layer", "id": "a"}, {"status": "Pulling fs layer", "id": "b"}]


def _loading(layer: str, current: int, total: int) -> dict[str, Any]:
    return {"status": "Downloading", "id": layer, "progressDetail": {"current": current, "total": total}}


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([], ""),
        ([{"status": "Pulling from team/app", "id": "latest"}, {"status": "Digest: sha256:1"}], ""),
        (BEGIN, "0 of 2 layers"),
        ([*BEGIN, _loading("a", 500_000, 2_000_000)], "500.0KB of 2.0MB, 0 of 2 layers"),
        ([*BEGIN, _loading("a", 1, 9), _loading("a", 2_000_000, 2_000_000), _loading("b", 10, 500_000)], "2.0MB of 2.5MB, 0 of 2 layers"),
        ([*BEGIN, _loading("a", 5, 1000), {"status": "Verifying Checksum", "id": "a"}], "1.0KB of 1.0KB, 0 of 2 layers"),
        (
            [
                *BEGIN,
                _loading("a", 5, 1000),
                {"status": "Extracting", "id": "a", "progressDetail": {"current": 1, "total": 7}},
                {"status": "Pull complete", "id": "a"},
                {"status": "Already exists", "id": "b"},
            ],
            "1.0KB of 1.0KB, 2 of 2 layers",
        ),
        ([*BEGIN, {"status": "Downloading", "id": "a"}, {"status": "Retrying in 5 seconds", "id": "a"}, {"id": 7}], "0 of 2 layers"),
    ],
)
def test_it_counts_bytes_and_layers(messages: list[dict[str, Any]], said: str) -> None:
    progress = Progress()
    for message in messages:
        progress.hear(message)
    assert str(progress) == said
