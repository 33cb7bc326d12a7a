"""What the process driver holds in memory of one instance, so that looking at it costs nothing while nothing happens."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from boreas_agent.drivers.runs import KEPT_RUNS, Carried, Run, exit_of
from boreas_agent.model import Exit, Instance, Observed, Phase


@dataclass(slots=True, eq=False)
class Tracked:
    """``where``: its folder. ``pidfd`` watches the current run; ``settling`` finds out how it ended; ``noted``: exits told by a keeper.

    ``late`` goes off where no keeper has told of the end that the pidfd has.
    ``busy``: it is being started. ``request``: what the last start that worked asked the keeper for. ``instance``: what it was
    made from, once that was needed. ``clean``: nothing is left of the current run, which has ended. ``hint`` is set when there
    is news of an end, ``ended`` once the end is known; ``told`` is what observers were told of ends.
    """

    carried: Carried
    where: str
    runs: tuple[Run, ...] = ()
    pidfd: int | None = None
    paused: bool = False
    busy: bool = False
    request: Mapping[str, Any] | None = None
    instance: Instance | None = None
    clean: bool = False
    late: asyncio.TimerHandle | None = None
    settling: asyncio.Task[None] | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    hint: asyncio.Event = field(default_factory=asyncio.Event)
    noted: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    tails: dict[int, str] = field(default_factory=dict)
    told: dict[int, Exit] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Its own folder."""
        return Path(self.where)

    @property
    def newest(self) -> Run | None:
        """The current run, which may have ended."""
        return self.runs[-1] if self.runs else None

    @property
    def number(self) -> int:
        """How often it was started."""
        return self.newest.number if self.newest else 0

    @property
    def running(self) -> bool:
        """As far as is known."""
        return self.newest is not None and self.newest.ended is None

    def began(self, run: Run) -> None:
        """There is a new current run."""
        self.runs = (*(old for old in self.runs if old.number < run.number), run)[-KEPT_RUNS:]
        self.paused = self.clean = False
        self.ended.clear()
        self.noted = {number: data for number, data in self.noted.items() if number >= run.number}
        self.tails = {old.number: self.tails[old.number] for old in self.runs if old.number in self.tails}
        self.told = {number: told for number, told in self.told.items() if number < run.number}

    def over(self, number: int, data: Mapping[str, Any], tail: str = "") -> None:
        """Run ``number`` has ended; the first word on it stands."""
        self.runs = tuple(replace(run, ended=data) if run.number == number and run.ended is None else run for run in self.runs)
        self.tails.setdefault(number, tail)
        if not self.running:
            self.ended.set()
        self.hint.set()

    def exits(self) -> tuple[Exit, ...]:
        """How the runs that are still on record ended, oldest first; not those of what it was before it was reloaded."""
        first = self.carried.reloaded.run if self.carried.reloaded else 0
        return tuple(self.told.get(run.number) or self._tell(run) for run in self.runs if run.ended is not None and run.number >= first)

    def _tell(self, run: Run) -> Exit:
        told = self.told[run.number] = exit_of(run, self.tails.get(run.number, ""))
        return told

    def observed(self, boot: str) -> Observed:
        """As the planner sees it."""
        claim, reloaded = self.newest.claim if self.newest else None, self.carried.reloaded
        phase = Phase.CREATED
        if self.newest:
            phase = Phase.EXITED if self.newest.ended is not None else Phase.PAUSED if self.paused else Phase.RUNNING
        return Observed(
            name=self.carried.name,
            kind=self.carried.kind,
            version=self.carried.version,
            hash=self.carried.hash,
            ref=str(claim.pid) if claim else "",
            phase=phase,
            run=self.number,
            started=claim.boottime if claim and claim.boot == boot else None,
            exits=self.exits(),
            record=self.carried.record,
            life=self.newest.key if self.newest else "",
            address="127.0.0.1",
            reloaded=reloaded.at if reloaded and (reloaded.run, reloaded.boot) == (self.number, boot) else None,
            carries=self.carried.revision,
        )
