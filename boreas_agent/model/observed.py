"""What is seen: instances as drivers see them, how runs ended, and what was asked of them."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Literal

from msgspec import Struct

from boreas_agent.model.desired import InstanceName


class Phase(StrEnum):
    """What an instance is really doing."""

    CREATED = "created"  # exists and was never started
    RUNNING = "running"
    PAUSED = "paused"
    EXITED = "exited"


class Exit(Struct, frozen=True):
    """How one run of an instance ended. ``run`` identifies the run within the instance.

    ``code`` and ``signal`` are both None where nobody could see the status (``lost``), or where the program
    could not be started at all; ``reason`` then says which. ``seconds`` is how long the run
    lasted, by a clock that does not jump, None where unknown.
    """

    run: str
    started_at: datetime | None
    exited_at: datetime
    code: int | None = None
    signal: str | None = None
    oom_killed: bool = False
    reason: str = ""
    seconds: float | None = None
    output_tail: str = ""
    lost: bool = False  # it ran, and nobody can know how it ended
    unhealthy: str = ""  # why the agent ended it: a probe failed as often as it may
    well_seconds: float | None = None  # how long its probes found it well; None: it has none
    timed_out: bool = False  # the agent ended it because it ran for too long; ``unhealthy`` says so, too

    @property
    def known(self) -> bool:
        """Somebody saw the status."""
        return self.code is not None or self.signal is not None

    @property
    def ok(self) -> bool:
        """The program ended by itself with status 0."""
        return self.code == 0 and not self.unhealthy

    @property
    def lasted(self) -> float | None:
        """Seconds of the run that speak for it: a program that answers no probe does not run stably, however long it runs."""
        return self.seconds if self.well_seconds is None else self.well_seconds

    @property
    def how(self) -> str:
        """The status in words."""
        if self.reason and not self.known:
            return self.reason
        how = f"killed by {self.signal}" if self.signal else f"exited with code {self.code}"
        return f"{how} (out of memory)" if self.oom_killed else how

    def __str__(self) -> str:
        return self.unhealthy or self.how


class Observed(Struct, frozen=True):
    """An instance as a driver sees it now.

    ``run`` counts the starts of this instance where the driver can count them, else 0; it is handed
    back to ``Driver.start`` so that one decision leads to at most one start.
    ``exits`` are the ends of runs that the driver still knows, oldest first; in phase EXITED the last
    one belongs to the current run. ``started`` is when the current run began, in boot seconds, None
    where unknown. ``misnamed`` says that somebody renamed it. ``record`` is what it carries; ``image``
    identifies the bytes it runs, where there is such a thing.
    ``digest`` says where these bytes can be fetched from, where anybody has said so.
    ``life`` tells the current run from all others of the instance, and is the ``Exit.run`` of its end. ``address`` is where
    its ports answer, empty where it has no network; ``checked`` what the image's own health check says, where it has one.
    ``reloaded`` is when, in this run, it went over to what ``hash`` and ``record`` say, in boot seconds; None: it began as that. An
    empty ``hash``: that was begun and not brought to an end, so what it has read nobody knows. ``carries`` is the revision in
    ``record`` where that is not the one it is named after, else 0.
    """

    name: InstanceName
    kind: str
    version: str
    hash: str
    ref: str
    phase: Phase
    run: int = 0
    started: float | None = None
    exits: tuple[Exit, ...] = ()
    misnamed: bool = False
    record: str = ""
    image: str = ""
    life: str = ""
    address: str = ""
    checked: Literal["", "starting", "healthy", "unhealthy"] = ""
    digest: str = ""
    reloaded: float | None = None
    carries: int = 0

    @property
    def run_key(self) -> str:
        """Tells the current run from all others of the replica."""
        return f"{self.name.revision}.{self.life}"

    @property
    def revision(self) -> int:
        """Which revision it is an instance of."""
        return self.carries or self.name.revision

    @property
    def up(self) -> bool:
        """It has a process, running or paused."""
        return self.phase in (Phase.RUNNING, Phase.PAUSED)

    @property
    def last_exit(self) -> Exit | None:
        """How the current run ended, where it has."""
        return self.exits[-1] if self.phase is Phase.EXITED and self.exits else None


class Executed(Struct, frozen=True):
    """How a command ended that ran beside an instance: its status, or ``problem``, why it has none; ``output`` is its end."""

    code: int | None
    output: str = ""
    problem: str = ""

    def tail(self, most: int) -> str:
        """The last ``most`` characters of its output, on one line, without what would deceive a reader in a terminal."""
        return "".join(char if char.isprintable() else "�" for char in " ".join(self.output.split()))[-most:]

    def why_not(self, most: int) -> str:
        """How it failed, with so much of its output, on one line; empty where it succeeded."""
        if self.code == 0:
            return ""
        what, output = self.problem or f"the command exited with code {self.code}", self.tail(most)
        return f"{what}: {output}" if output else what


class Probed(Struct, frozen=True):
    """What its probes have found of one run (``Observed.run_key``). Changes with verdicts, not with every result.

    ``by`` identifies the probes that were asked. ``ready`` without a readiness probe: as soon as started.
    """

    run: str
    by: str
    started: bool = False  # the startup probe has passed, or there is none
    ready: bool = False
    lost: bool = False  # it was ready once, and is not any more
    why: str = ""  # why it is not started or not ready, in a few words
    blemish: str = ""  # a probe has failed lately, and less often than it may
    doomed: str = ""  # a startup or liveness probe failed as often as it may: to be restarted, and why
    well_since: float | None = None  # boot second from which on it was ready without a break
    well_seconds: float = 0.0  # of one that is doomed: how long it had been well
