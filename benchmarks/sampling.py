"""Samples in turn: one of each side, then again, so that noise of the machine hits all sides alike."""

from __future__ import annotations

import time
from collections.abc import Callable

WARM_UP = 3
"""Rounds that are not counted: first connections, first imports, cold caches."""


def in_turn(rounds: int, *sides: Callable[[], float], pause: float = 0.0) -> tuple[list[float], ...]:
    """``rounds`` samples of each side.

    ``pause`` (seconds) is left after every sample, so that what one side still does after its answer (a commit, a fork
    for the next time) does not fall into the other's time.
    """
    samples: tuple[list[float], ...] = tuple([] for _ in sides)
    for turn in range(-WARM_UP, rounds):
        for side, kept in zip(sides, samples, strict=True):
            value = side()
            if turn >= 0:
                kept.append(value)
            time.sleep(pause)
    return samples
