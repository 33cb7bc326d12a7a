"""Pure: which of the images that the agent has pulled may go, and in which order; in kubelet's words.

An image is idle while no container is made of it and no app may come back to it. Idle time is what the agent has seen of it, on the
boot clock: neither a clock that is set nor a night without the agent makes an image old.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from boreas_agent.model import Good, Head, PulledImage
from boreas_agent.spec import DockerPkg


class Policy(Struct, frozen=True):
    """Seconds that an image must have been idle at least, and, where it is above 0, may be at most; how full the disk may become.

    Above ``high_percent`` images go, the longest idle first, until no more than ``low_percent`` is used.
    """

    min_age: float
    max_age: float
    high_percent: float
    low_percent: float


def needed(heads: Iterable[Head]) -> tuple[frozenset[str], frozenset[str]]:
    """The images that apps run, or go back to if what they run fails: by id, and by what their specs call them."""
    ids: set[str] = set()
    names: set[str] = set()
    for head in heads:
        if head.revision.removed:
            continue
        wanted = Good(head.revision, head.deployment.image if head.deployment else "")
        for one in (wanted, head.ran, head.good):
            if one is not None and isinstance(one.revision.pkg, DockerPkg):
                names.add(one.revision.pkg.image)
                ids |= {one.image} if one.image else set()
    return frozenset(ids), frozenset(names)


def aged(images: Iterable[PulledImage], used: Collection[str], idle: Mapping[str, float], seconds: float) -> Sequence[PulledImage]:
    """The images ``seconds`` after the last look; ``idle``: what is known of their time beyond what is on record."""
    return tuple(replace(one, idle=0.0 if one.id in used else idle.get(one.id, one.idle) + seconds) for one in images)


def too_old(images: Iterable[PulledImage], policy: Policy) -> Sequence[PulledImage]:
    """Those that go whatever room there is."""
    return _longest_idle_first(one for one in images if 0 < policy.max_age <= one.idle and one.idle >= policy.min_age)


def for_room(images: Iterable[PulledImage], policy: Policy) -> Sequence[PulledImage]:
    """Those that may go where the disk is too full."""
    return _longest_idle_first(one for one in images if one.idle > 0 and one.idle >= policy.min_age)


def _longest_idle_first(images: Iterable[PulledImage]) -> Sequence[PulledImage]:
    return sorted(images, key=lambda one: (-one.idle, one.pulled_at))
