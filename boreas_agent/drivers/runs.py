"""What a process instance is on disk: its folder, the record it carries, and the claims and exits of its runs.

Claims and exits are written by the keeper and its children; see ``boreas_agent.keeper``. What cannot be read is
left alone: it is neither ours to run nor ours to delete.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from msgspec import Struct

from boreas_agent import records
from boreas_agent.errors import Invalid
from boreas_agent.model import Exit, InstanceName

KEPT_RUNS = 2
_log = logging.getLogger(__name__)


class Places(Struct, frozen=True):
    """Where the things of one instance are, as text: making a ``Path`` of each is felt in every start."""

    apps: str
    app: str
    instances: str
    folder: str
    release: str
    stdout: str
    stderr: str


class Layout(Struct, frozen=True):
    """Where things are under the work dir."""

    work_dir: Path

    @property
    def apps(self) -> Path:
        """A folder for each app."""
        return self.work_dir / "apps"

    @property
    def keeper(self) -> Path:
        """The keepers' sockets and logs."""
        return self.work_dir / "keeper"

    def folder(self, name: InstanceName) -> Path:
        """The instance's own folder."""
        return Path(self.places(name).folder)

    def release(self, name: InstanceName) -> Path:
        """Where a program's relative path and working directory start."""
        return Path(self.places(name).release)

    def log(self, name: InstanceName, stream: str) -> Path:
        """The output of all revisions of one replica, one after the other."""
        places = self.places(name)
        return Path(places.stdout if stream == "stdout" else places.stderr)

    def places(self, name: InstanceName) -> Places:
        """All of one instance."""
        apps = f"{self.work_dir}/apps"
        app = f"{apps}/{name.app}"
        instances, log = f"{app}/instances", f"{app}/logs/{name.replica}"
        return Places(
            apps=apps,
            app=app,
            instances=instances,
            folder=f"{instances}/{name.revision}.{name.replica}",
            release=f"{app}/releases/{name.revision}",
            stdout=f"{log}.stdout.log",
            stderr=f"{log}.stderr.log",
        )


class Claim(Struct, frozen=True):
    """That a run was started, and which process is it. ``stdout`` and ``stderr`` are where its output begins."""

    run: int
    pid: int
    start: int
    boot: str
    keeper: tuple[int, int]
    cgroup: str | None
    stdout: int
    stderr: int
    wall: float
    boottime: float


class Run(Struct, frozen=True):
    """One run of an instance; ``ended`` is what its exit file holds. ``claim`` None: it cannot be read."""

    number: int
    claim: Claim | None
    ended: Mapping[str, Any] | None = None

    @property
    def key(self) -> str:
        """Tells it from every other run of an instance of this name; one that is made again later counts from 1 anew."""
        return f"{self.number}@{self.claim.wall:.3f}" if self.claim else str(self.number)


class Reloaded(Struct, frozen=True):
    """That an instance went over to what it carries now, in its run ``run``; ``at`` in seconds of boot ``boot``.

    Not ``done``: it carries what it was, and may have read something else since.
    """

    run: int
    at: float
    boot: str
    done: bool = True


class Carried(Struct, frozen=True):
    """What an instance's folder says it is."""

    name: InstanceName
    kind: str
    version: str
    hash: str
    record: str
    identity: str
    revision: int
    reloaded: Reloaded | None = None


def parse_claim(run: int, data: Mapping[str, Any]) -> Claim:
    """Raises KeyError, TypeError or ValueError where it is not a claim."""
    keeper = data["keeper"]
    fields = {key: data[key] for key in ("pid", "start", "boot", "cgroup", "stdout", "stderr", "wall", "boottime")}
    return Claim(run=run, keeper=(int(keeper[0]), int(keeper[1])), **fields)


def read_carried(folder: Path) -> Carried | None:
    """What the folder carries; None where it carries nothing yet. Raises Invalid where it cannot be understood.

    A file that ends in the middle was not durable when the machine went down: nothing it spoke of can run any more.
    """
    try:
        text = (folder / "instance.json").read_bytes()
        if not text.endswith(b"}"):
            return None
        data = json.loads(text)
        revision = records.decode(data["record"])
        made_by, _, replica = folder.name.partition(".")
        reloaded = Reloaded(**data["reloaded"]) if "reloaded" in data else None
        name = InstanceName(revision.app, int(made_by) if reloaded else revision.revision, int(replica))
        made_of = revision.instance_hash if reloaded is None or reloaded.done else ""
        return Carried(name, revision.pkg.type, revision.version, made_of, data["record"], data["identity"], revision.revision, reloaded)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Invalid(()) from error


def scan(layout: Layout, identity: str) -> Iterator[Carried]:
    """Every instance that is ours. Raises OSError where the folders cannot be listed at all."""
    if not layout.apps.exists():
        return
    for app in sorted(layout.apps.iterdir()):
        instances = app / "instances"
        for entry in sorted(instances.iterdir()) if instances.is_dir() else ():
            if entry.name.startswith("."):
                continue
            with suppress(Invalid):
                carried = read_carried(entry)
                if carried and carried.identity == identity and layout.folder(carried.name) == entry:
                    yield carried
                continue
            _log.warning("left alone: cannot read the instance", extra={"folder": str(entry)})


def read_runs(folder: Path) -> tuple[Run, ...]:
    """The runs that are still on record, oldest first."""
    numbers = sorted(int(path.name[:-6]) for path in folder.glob("*.claim") if path.name[:-6].isdigit())
    return tuple(Run(number, _read_claim(folder, number), read_exit(folder, number)) for number in numbers)


def _read_claim(folder: Path, run: int) -> Claim | None:
    try:
        return parse_claim(run, json.loads((folder / f"{run}.claim").read_bytes()))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None  # the machine went down before it was durable, and so before the first instruction


def read_exit(folder: Path, run: int) -> Mapping[str, Any] | None:
    """How the run ended, where somebody saw it. A half-written file is as good as none."""
    try:
        data: dict[str, Any] = json.loads((folder / f"{run}.exit").read_bytes())
    except (OSError, ValueError):
        return None
    return data if data.keys() >= {"status", "wall", "boottime"} else None


def write_exit(folder: Path, run: int, data: Mapping[str, Any]) -> None:
    """Note an end that the keeper did not write; what it did write wins."""
    draft = folder / f".{run}.{uuid.uuid4().hex}"
    with suppress(FileExistsError, FileNotFoundError):
        draft.write_text(json.dumps(data), encoding="utf-8")
        try:
            (folder / f"{run}.exit").hardlink_to(draft)
        finally:
            draft.unlink()


def forget_old(folder: Path, newest: int) -> None:
    """Delete what is recorded of runs before the last few."""
    for path in (*folder.glob("*.claim"), *folder.glob("*.exit")):
        if path.stem.isdigit() and int(path.stem) <= newest - KEPT_RUNS:
            path.unlink(missing_ok=True)


def exit_of(run: Run, output_tail: str = "") -> Exit:
    """The end of a run, from what was written down. ``run.ended`` must be given."""
    ended, claim = run.ended or {}, run.claim
    status, reason = ended.get("status"), ended.get("error") or ""
    code = signal_name = None
    if status is not None and not reason:
        code, signal_name = (None, name_of(os.WTERMSIG(status))) if os.WIFSIGNALED(status) else (os.WEXITSTATUS(status), None)
    timed = claim is not None and ended.get("boottime") is not None
    return Exit(
        run=run.key,
        started_at=_utc(claim.wall) if claim else None,
        exited_at=_utc(ended["wall"]),
        code=code,
        signal=signal_name,
        oom_killed=bool(ended.get("oom")) and code != 0,
        reason=reason,
        seconds=max(0.0, ended["boottime"] - claim.boottime) if claim and timed else None,
        output_tail=output_tail,
        lost=status is None,
    )


def name_of(number: int) -> str:
    """``SIGKILL``; real-time signals have no names of their own."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIGRTMIN+{number - signal.SIGRTMIN}"


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def write_durably(path: Path, content: str, mode: int = 0o600, *, sync: bool = True) -> None:
    """The whole file or nothing of it, also after a power loss (its folder is made durable by whoever goes on).

    Without ``sync`` a power loss may leave less than the whole: for what is made anew where it is found so.
    """
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(fd, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            file.write(content)
            file.flush()
            os.fchmod(fd, mode)
            if sync:
                os.fsync(fd)
        draft.rename(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
