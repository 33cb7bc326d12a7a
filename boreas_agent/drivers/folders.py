"""Makes and deletes instance folders. All of it touches the disk, so it runs in the driver's thread."""

from __future__ import annotations

import json
import shutil
import uuid
from contextlib import suppress
from pathlib import Path

from msgspec.structs import asdict

from boreas_agent import jsontext
from boreas_agent.artifacts.releases import switch
from boreas_agent.drivers import procfs, script
from boreas_agent.drivers.runs import Carried, Claim, Layout, read_carried, read_runs, write_durably
from boreas_agent.errors import Invalid, Terminal, Transient
from boreas_agent.keeper.kernel import sync
from boreas_agent.model import Instance, InstanceName
from boreas_agent.spec import BinaryPkg, ScriptPkg


def ensure(layout: Layout, identity: str, want: Instance, known: bool) -> list[str]:
    """Have the instance's folder and what its run needs; the folders that are not durable yet.

    ``known``: the folder was seen to be ours. Raises Terminal where the folder is there and not ours, OSError where it cannot be made.
    """
    folder = layout.folder(want.name)
    layout.log(want.name, "stdout").parent.mkdir(parents=True, exist_ok=True)
    layout.release(want.name).mkdir(parents=True, exist_ok=True)
    if isinstance(want.pkg, BinaryPkg | ScriptPkg) and want.pkg.brings:
        switch(layout.release(want.name))
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for file, content in script.files(want.pkg).items() if isinstance(want.pkg, ScriptPkg) else ():
        if not (folder / file).exists():
            write_durably(folder / file, content, mode=0o755)
    if known or _is_ours(folder, identity, want.name):
        return []
    # Not synced: it is of use only with what it speaks of, and that does not outlive a power loss either.
    write_durably(folder / "instance.json", carried_text(carried_by(want, identity)), sync=False)
    return [str(folder.parent), str(layout.apps / want.name.app), str(layout.apps)]


def _is_ours(folder: Path, identity: str, name: InstanceName) -> bool:
    """Whether it carries a record of ours; False where it carries none. Raises Terminal for anything else."""
    try:
        carried = read_carried(folder)
    except Invalid:
        raise Terminal(f"cannot start {name}: cannot read {folder}/instance.json; repair it or move the folder away") from None
    if carried and carried.identity != identity:
        raise Terminal(f"cannot start {name}: {folder} belongs to the node {carried.identity}; move it away")
    return carried is not None


def carried_text(carried: Carried) -> str:
    """What ``instance.json`` holds."""
    reloaded = {"reloaded": asdict(carried.reloaded)} if carried.reloaded else {}
    return jsontext.compact({"record": carried.record, "identity": carried.identity, **reloaded})


def carried_by(want: Instance, identity: str) -> Carried:
    """What the folder of ``want`` says after :func:`ensure`."""
    return Carried(want.name, want.pkg.type, want.version, want.hash, want.record, identity, want.name.revision)


def restore(folder: Path, carried: Carried, claim: Claim) -> None:
    """Somebody deleted the folder of a running instance: without it the next agent would not know the process."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_durably(folder / f"{claim.run}.claim", json.dumps(asdict(claim)))
    note(folder, carried)


def note(folder: Path, carried: Carried) -> None:
    """Have the folder say what is ``carried``."""
    write_durably(folder / "instance.json", carried_text(carried))
    sync(str(folder))


def delete(layout: Layout, name: InstanceName, boot: str) -> None:
    """Delete the instance's folder, and the release folder if it is empty; never logs. Raises Transient.

    The folder is moved away first: a start that is still under way somewhere cannot claim its run any more,
    or has claimed it before, and then this is seen here.
    """
    folder = layout.folder(name)
    aside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    with suppress(FileNotFoundError):
        folder.rename(aside)
        for run in read_runs(aside):
            if run.claim and run.ended is None and run.claim.boot == boot and procfs.living(run.claim.pid, run.claim.start):
                aside.rename(folder)
                raise Transient(f"cannot remove {name}: it was started meanwhile (pid {run.claim.pid})")
        shutil.rmtree(aside)
    for empty in (layout.release(name), folder.parent):
        with suppress(OSError):
            empty.rmdir()


def leave(layout: Layout, name: InstanceName) -> None:
    """Delete the release folder, and the app's, if nothing is in them."""
    release = layout.release(name)
    for empty in (release, release.parent, layout.apps / name.app):
        with suppress(OSError):
            empty.rmdir()


def sweep(layout: Layout, before: float) -> None:
    """Delete the logs of apps that have no instance any more and wrote nothing since ``before`` (seconds since the epoch)."""
    for app in tuple(layout.apps.iterdir()):
        with suppress(OSError):
            logs = app / "logs"
            if (app / "instances").exists() or max(path.stat().st_mtime for path in (logs, *logs.iterdir())) >= before:
                continue
            shutil.rmtree(logs)
            for empty in (app / "releases", app):
                empty.rmdir()
