"""The newest revision numbers of apps that are gone, so that none is given twice.

In memory, for whoever asks is on the event loop; bounded, for apps come and go for ever: of the oldest only the database knows.
"""

from __future__ import annotations

from collections.abc import Iterable

MOST = 4096


class Gone:
    """Names with the number of their last revision, the latest ``MOST`` of them."""

    def __init__(self, numbers: Iterable[tuple[str, int]] = ()) -> None:
        """``numbers``: the longest gone first."""
        self._numbers: dict[str, int] = {}
        self._all = True
        for app, number in numbers:
            self.put(app, number)

    def put(self, app: str, number: int) -> None:
        """``app`` is gone, or was found to be."""
        self._numbers.pop(app, None)
        self._numbers[app] = number
        if len(self._numbers) > MOST:
            del self._numbers[next(iter(self._numbers))]
            self._all = False

    def newest(self, app: str) -> int | None:
        """The number; 0 for an app that never was; None where it must be looked up."""
        return self._numbers.get(app, 0 if self._all else None)
