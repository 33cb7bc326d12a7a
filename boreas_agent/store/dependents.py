"""The other way round: which apps depend on an app. Kept up to date with the heads, so that nobody has to look through all of them."""

from __future__ import annotations

from collections.abc import Mapping

from boreas_agent.model import Head

_NONE: frozenset[str] = frozenset()


class Dependents:
    """By what is desired of an app as well as by what is to run of it, while these differ."""

    def __init__(self, heads: Mapping[str, Head]) -> None:
        self._by_need: dict[str, frozenset[str]] = {}
        for app, head in heads.items():
            self.update(app, None, head)

    def of(self, app: str) -> frozenset[str]:
        """The apps that depend on ``app``."""
        return self._by_need.get(app, _NONE)

    def update(self, app: str, before: Head | None, now: Head | None) -> None:
        """The head of ``app`` has become another one; None: there is none."""
        old, new = _needs(before), _needs(now)
        if old == new:
            return
        for need in new - old:
            self._by_need[need] = self.of(need) | {app}
        for need in old - new:
            left = self.of(need) - {app}
            if left:
                self._by_need[need] = left
            else:
                self._by_need.pop(need, None)


def _needs(head: Head | None) -> frozenset[str]:
    if head is None:
        return _NONE
    desired, running = head.revision, head.running
    needs = desired.pkg.depends_on if running is desired else (*desired.pkg.depends_on, *running.pkg.depends_on)
    return frozenset(need.app for need in needs) if needs else _NONE
