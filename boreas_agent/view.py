"""One app at one moment, and what a pass makes of it: how it is, and what goes on record."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from boreas_agent import drain, ledger, planner
from boreas_agent import health as judge
from boreas_agent.deploying import worth_a_commit
from boreas_agent.executor import Done
from boreas_agent.model import Drained, Head, Health, InstanceName, Observed, ScriptRun, Waiting
from boreas_agent.store.values import Outcome


class View(Struct, frozen=True):
    """The app's head with the attempts brought up to date, what runs, and what of that is new."""

    head: Head
    observed: Sequence[Observed]
    account: ledger.Account
    drained: Drained | None = None
    waiting: Waiting | None = None

    def assess(self, now: float) -> judge.Assessment:
        """How the app is; ``now`` in boot seconds."""
        judged = judge.assess(self.head, self.observed, now, self.waiting)
        waiting = self.waiting.why if self.waiting else ""
        return replace(judged, health=drain.health(self.head, self.observed, judged.health, self.drained, waiting))

    def outcome(self, health: Health, proven: str, done: Done) -> Outcome:
        """All that is to be recorded: what was found, and what was ``done``."""
        head = self.head
        return Outcome(
            app=head.app,
            revision=head.revision.revision,
            health=health,
            attempts=head.attempts,
            proven=proven,
            homes=head.homes | {one.kind for one in self.observed},
            hooked=self.account.hooked,
            exits=(*done.exits, *self.account.exits),  # of two words on one end the first counts: done knows why it was stopped
            runs=(*self.account.runs, *self._runs_left_over(done)),
            events=(*self.account.events, *done.events),
        )

    def _runs_left_over(self, done: Done) -> list[tuple[InstanceName, ScriptRun]]:
        """The runs of scripts that ended with what stands for no replica."""
        _, rest = planner.sort_out(self.head, self.observed)
        scripts = {seen.name for seen in rest if seen.kind == "script"}
        return [(name, ScriptRun.ended(one)) for name, one in done.exits if name in scripts]

    def recorded(self) -> View:
        """The same once what is new of it is on record."""
        return replace(self, account=replace(self.account, exits=(), events=(), runs=()))


def is_news(known: Head | None, outcome: Outcome) -> bool:
    """Whether ``outcome`` says something that is not on record; an app that is as it was costs no commit."""
    if known is None:
        return False
    if outcome.exits or outcome.events or outcome.runs or outcome.gone:
        return True
    if worth_a_commit(known.deployment, outcome.deployment or known.deployment):
        return True
    if outcome.hooked is not None and outcome.hooked != known.hooked:
        return True
    before = (known.health, dict(known.attempts), known.proven, known.unknown_since, known.homes)
    return before != (outcome.health, dict(outcome.attempts), outcome.proven, outcome.unknown_since, outcome.homes)
