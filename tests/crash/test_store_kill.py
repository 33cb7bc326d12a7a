"""An acknowledged request survives kill -9 of the agent, at whatever moment."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from pathlib import Path

from boreas_agent.clock import SystemClock
from boreas_agent.store.store import Store
from tests.unit.store_harness import sql

ROUNDS = 10
APPLIER = """
import asyncio, sys
from pathlib import Path
from boreas_agent.clock import SystemClock
from boreas_agent.spec import parse_submission
from boreas_agent.store.store import Store

async def applies(store, app, round_):
    number = 0
    while True:
        number += 1
        pkg = {"type": "binary", "command": ["/bin/true"], "environment": {"FILL": "x" * 500}}
        receipt = await store.apply(parse_submission({"app": app, "version": f"{round_}.{number}", "pkg": pkg}), "test")
        sys.stdout.write(f"{app} {receipt.revision} {receipt.version}\\n")
        sys.stdout.flush()

async def main():
    store = await Store.open(Path(sys.argv[1]), SystemClock())
    await asyncio.gather(*(applies(store, f"app-{n}", sys.argv[2]) for n in range(8)))

asyncio.run(main())
"""


def _killed_after(path: Path, round_: int, lines: int) -> list[str]:
    """What was acknowledged by an agent that is killed after about ``lines`` acknowledgements."""
    with subprocess.Popen([sys.executable, "-c", APPLIER, str(path), str(round_)], stdout=subprocess.PIPE, text=True) as agent:
        assert agent.stdout is not None
        told = [agent.stdout.readline() for _ in range(lines)]
        agent.kill()
        told += agent.stdout.readlines()
    return [line for line in told if line.endswith("\n")]


def test_every_acknowledged_apply_is_there_after_kill_9(tmp_path: Path) -> None:
    chance = random.Random(8)
    acknowledged: set[tuple[str, int, str]] = set()
    for round_ in range(ROUNDS):
        lines = _killed_after(tmp_path / "agent.db", round_, chance.randint(1, 400))
        told = [(app, int(revision), version) for app, revision, version in (line.split() for line in lines)]
        assert len({(app, revision) for app, revision, _ in told}) == len(told), "a revision number was given twice"
        acknowledged |= set(told)
        recorded = set(sql(tmp_path, "SELECT app, revision, version FROM v_revisions"))
        assert acknowledged <= recorded

    async def reopened() -> None:
        store = await Store.open(tmp_path / "agent.db", SystemClock())
        newest = dict(sql(tmp_path, "SELECT app, max(revision) FROM v_revisions GROUP BY app"))
        assert {app: head.revision.revision for app, head in store.heads.items()} == newest
        assert await store.events(None, limit=1000) != []
        await store.close()

    asyncio.run(reopened())
    assert sql(tmp_path, "PRAGMA integrity_check") == [("ok",)]
    assert not list(tmp_path.glob("*.damaged-*"))
