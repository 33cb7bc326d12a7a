"""From what the engine says about a container to what the agent has observed. Pure but for ``/proc``.

The list call tells the state, only an inspect tells times, exit code and pid. Both speak in wall-clock
times of the engine's host; the agent decides by the boot-time clock, so ends of runs that were seen
running are measured on that one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

from msgspec import Struct

from boreas_agent.drivers.docker_spec import Card, container_name
from boreas_agent.model import Exit, Observed, Phase

KIND = "docker"
Checked: TypeAlias = Literal["", "starting", "healthy", "unhealthy"]
_NEVER = "0001-01-01"
_JUMP = 1.0  # seconds by which wall clock and boot clock may drift apart before the former counts as set
_LATE = 5.0  # seconds: the engine notes the start of a run later than it happened, so a short one may seem to end before it began
_SIGNALS = {129: "SIGHUP", 130: "SIGINT", 131: "SIGQUIT", 134: "SIGABRT", 137: "SIGKILL", 139: "SIGSEGV", 143: "SIGTERM"}
"""What 128+n usually means. The engine passes on one number, so ``exit 137`` looks the same as SIGKILL."""

_PHASES = {
    "created": Phase.CREATED,
    "running": Phase.RUNNING,
    "restarting": Phase.RUNNING,
    "paused": Phase.PAUSED,
    "exited": Phase.EXITED,
    "dead": Phase.EXITED,
    "removing": Phase.EXITED,
}


class Now(Struct, frozen=True):
    """One reading of both clocks."""

    boottime: float
    wall: datetime

    @property
    def offset(self) -> float:
        """Wall minus boot time: it changes only when somebody sets the wall clock."""
        return self.wall.timestamp() - self.boottime


class Running(Struct, frozen=True):
    """A run that was seen running: when it began on the boot clock, and how the clocks stood to each other then.

    ``pid`` is its main process, 0 where that cannot be seen from here.
    """

    run: str
    boottime: float
    offset: float
    pid: int = 0


class Facts(Struct, frozen=True):
    """What one inspect told. ``seen`` is the text of the list it belongs to: another text needs another inspect.

    The text holds the age ("Up 3 minutes"), which is coarse but shows a container that was restarted
    behind our back; it changes ever more seldom, so a quiet node is not inspected at all.
    """

    seen: tuple[str, str]
    phase: Phase
    running: Running | None
    exit: Exit | None
    checked: Checked = ""


def phase_of(state: str) -> Phase:
    """The phase behind the engine's word; a word from a later engine counts as running, so nothing is doubled."""
    return _PHASES.get(state, Phase.RUNNING)


def facts(seen: tuple[str, str], found: Mapping[str, Any], now: Now, started: float | None, before: Facts | None) -> Facts:
    """What the inspect ``found`` tells. ``started`` is when its main process began (boot seconds), where ``/proc`` shows it."""
    state: Mapping[str, Any] = found["State"]
    phase = phase_of(state.get("Status", seen[0]))
    run = f"{str(found['Id'])[:12]}@{state.get('StartedAt', '')}"
    running = before.running if before and before.running and before.running.run == run else None
    if phase in (Phase.RUNNING, Phase.PAUSED):
        if started is not None:
            running = Running(run, started, now.offset, int(state.get("Pid") or 0))
        return Facts(seen, phase, running or Running(run, now.boottime, now.offset), None, checked_of(state))
    if phase is Phase.CREATED:
        return Facts(seen, phase, None, None)
    if before and before.exit and before.exit.run == run:
        return Facts(seen, phase, running, before.exit)
    return Facts(seen, phase, running, exit_of(run, state, running, now))


def checked_of(state: Mapping[str, Any]) -> Checked:
    """What the image's own HEALTHCHECK says, from the engine's ``State``."""
    said = (state.get("Health") or {}).get("Status", "")
    return said if said in ("starting", "healthy", "unhealthy") else ""


def address_of(summary: Mapping[str, Any]) -> str:
    """Where the container's own ports are reached from the node, from the list: published or not."""
    mode = (summary.get("HostConfig") or {}).get("NetworkMode", "")
    if mode == "host":
        return "127.0.0.1"
    networks = ((summary.get("NetworkSettings") or {}).get("Networks") or {}).values()
    addresses = [network.get("IPAddress") or network.get("GlobalIPv6Address") for network in networks if network]
    return next((str(address) for address in addresses if address), "")


def digest_of(reference: str, digests: Sequence[str]) -> str:
    """Where an image can be fetched again: in the repository that ``reference`` names, or in any that is known; empty where none is."""
    repository = reference.partition("@")[0]
    repository = repository.rpartition(":")[0] if ":" in repository.rpartition("/")[2] else repository
    return next((digest for digest in digests if digest.partition("@")[0] == repository), digests[0] if digests else "")


def exit_of(run: str, state: Mapping[str, Any], running: Running | None, now: Now) -> Exit:
    """How a run ended, from the engine's ``State``."""
    code = int(state.get("ExitCode", 0))
    began, ended = _time(state.get("StartedAt")), _time(state.get("FinishedAt"))
    if ended is None:
        return Exit(run, began, now.wall, reason="exit status unknown")
    return Exit(
        run,
        began,
        ended,
        code=code,
        signal=_SIGNALS.get(code),
        oom_killed=bool(state.get("OOMKilled")) and code != 0,
        reason=str(state.get("Error") or ""),
        seconds=_seconds(began, ended, running, now),
    )


def _seconds(began: datetime | None, ended: datetime, running: Running | None, now: Now) -> float | None:
    """How long the run lasted: by the engine's wall clock, unless that was set meanwhile."""
    wall = (ended - began).total_seconds() if began else None
    if wall is not None and -_LATE <= wall < 0:
        wall = 0.0
    if running is None:
        return wall if wall is not None and 0 <= wall <= now.boottime else None
    longest = max(0.0, now.boottime - running.boottime)
    if wall is None or wall < 0 or abs(now.offset - running.offset) > _JUMP:
        return longest
    return min(wall, longest)


def observed(card: Card, summary: Mapping[str, Any], known: Facts, identity: str) -> Observed:
    """One container as the rest of the agent sees it."""
    phase = known.phase
    return Observed(
        card.name,
        KIND,
        card.version,
        card.hash,
        summary["Id"],
        phase,
        started=known.running.boottime if known.running and phase in (Phase.RUNNING, Phase.PAUSED) else None,
        exits=(known.exit,) if known.exit else (),
        misnamed=f"/{container_name(card.name, identity)}" not in (summary.get("Names") or ()),
        record=card.record,
        image=str(summary.get("ImageID") or ""),
        life=known.running.run if known.running else "",
        address=address_of(summary) if phase is Phase.RUNNING else "",
        checked=known.checked,
    )


def _time(text: str | None) -> datetime | None:
    if not text or text.startswith(_NEVER):
        return None
    return datetime.fromisoformat(text).astimezone(UTC)
