"""Pure: which hooks are due, and what is said of them.

``pre_start`` belongs to the deployment: it is due once, when the deployment is about to make its first instance, and has no part in
falling back, for the older revision had its own. ``post_start`` belongs to the run: it is due beside each run until it is on record
for that very run. ``pre_stop`` goes with every stop, and is nowhere on record.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType

from boreas_agent.errors import Invalid
from boreas_agent.model import Head, Observed, Phase, Revision, Stage
from boreas_agent.records import decode
from boreas_agent.spec import Hook

_OVER = (Stage.SUCCEEDED, Stage.SUPERSEDED)


def pre_start(head: Head) -> Hook | None:
    """The hook that the head's deployment has still to go through before its first instance is made."""
    deployment = head.deployment
    if deployment is None or deployment.pre_started or deployment.stage in _OVER or head.fallback is not None:
        return None
    return head.revision.pkg.hooks.pre_start


def post_start(head: Head, seen: Observed) -> Hook | None:
    """The hook that has still to be carried out beside a running instance, or that has failed there.

    One that was reloaded in this run was complete before.
    """
    hook = head.running.pkg.hooks.post_start
    if hook is None or seen.phase is not Phase.RUNNING or seen.reloaded is not None or head.hooked.get(key_of(seen)) == "":
        return None
    return hook if _made_with_one(head.running, seen) else None


def _made_with_one(running: Revision, seen: Observed) -> bool:
    """An instance made by a revision that had no such hook was complete without it, and stays so."""
    if seen.name.revision != running.revision:
        with suppress(Invalid):
            return decode(seen.record).pkg.hooks.post_start is not None
    return True


def complete(head: Head, seen: Observed, made: Revision) -> bool:
    """Whether nothing is due any more, and nothing has failed, beside an instance of another revision, ``made``."""
    return made.pkg.hooks.post_start is None or seen.reloaded is not None or head.hooked.get(key_of(seen)) == ""


def failed(head: Head, seen: Observed) -> str:
    """Why the hook beside the current run failed; empty where it did not."""
    return head.hooked.get(key_of(seen), "")


def key_of(seen: Observed) -> str:
    """Tells the current run from all others of the app."""
    return run_key(seen, seen.life)


def run_key(seen: Observed, run: str) -> str:
    """The same for any run of the instance."""
    return f"{seen.name.revision}.{seen.name.replica}:{run}"


def still_seen(hooked: Mapping[str, str], observed: Sequence[Observed]) -> Mapping[str, str]:
    """What is worth remembering: of the runs that are under way, or whose end is still told."""
    if not hooked:
        return hooked
    runs = {run_key(seen, run) for seen in observed for run in (seen.life, *(one.run for one in seen.exits))}
    return MappingProxyType({run: said for run, said in hooked.items() if run in runs})
