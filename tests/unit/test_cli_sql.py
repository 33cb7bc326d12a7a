"""``boreas-agent sql``: reads a live or a left database, and only reads."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from boreas_agent.clock import SystemClock
from boreas_agent.spec import parse_submission
from boreas_agent.store.store import Store

APPS = "select app, version, status from v_status"


def ask(work_dir: Path, *arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``sql`` on a work dir."""
    where = [] if "AGENT_WORK_DIR" in environment else ["--work-dir", str(work_dir)]
    command = [sys.executable, "-m", "boreas_agent", "sql", *where, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, input=stdin, env=os.environ | environment, timeout=30, check=False)
    assert "Traceback" not in done.stdout + done.stderr
    return done


def with_store(work_dir: Path, use: Callable[[Store], Awaitable[None]]) -> None:
    """Call ``use`` with an open store in ``work_dir`` that knows one app."""

    async def whole() -> None:
        store = await Store.open(work_dir / "agent.db", SystemClock())
        try:
            await store.apply(parse_submission({"app": "web", "version": "v1", "pkg": {"type": "docker", "image": "x"}}), "test")
            await use(store)
        finally:
            await store.close()

    asyncio.run(whole())


async def nothing(_: Store) -> None:
    """Only open and close."""


def test_it_reads_while_the_agent_writes(tmp_path):
    async def read(_: Store) -> None:
        done = await asyncio.to_thread(ask, tmp_path, "-o", "json", APPS)
        assert json.loads(done.stdout) == [{"app": "web", "version": "v1", "status": "pending"}]

    with_store(tmp_path, read)


def test_it_reads_after_the_agent_has_stopped(tmp_path):
    with_store(tmp_path, nothing)
    done = ask(tmp_path, APPS)
    assert [line.split() for line in done.stdout.splitlines()] == [["app", "version", "status"], ["web", "v1", "pending"]]


def test_it_reads_what_a_killed_agent_left(tmp_path):
    left = tmp_path / "left"
    left.mkdir()

    async def copy(_: Store) -> None:
        for name in ("agent.db", "agent.db-wal"):
            shutil.copy(tmp_path / name, left / name)

    with_store(tmp_path, copy)
    assert json.loads(ask(left, "-o", "json", APPS).stdout) == [{"app": "web", "version": "v1", "status": "pending"}]


def test_the_query_may_come_from_stdin_and_the_work_dir_from_the_environment(tmp_path):
    with_store(tmp_path, nothing)
    done = ask(tmp_path, "-o", "json", stdin="select count(*) as apps from v_status;\n", AGENT_WORK_DIR=str(tmp_path))
    assert json.loads(done.stdout) == [{"apps": 1}]


def test_into_a_pipe_no_cell_is_cut_off_or_wrapped(tmp_path):
    with_store(tmp_path, nothing)
    done = ask(tmp_path, "select replace(hex(zeroblob(600)), '0', 'x') as long, 2 as n")
    assert done.stdout.splitlines()[1].split() == ["x" * 1200, "2"]


def test_json_keeps_columns_of_one_name_apart_and_shows_no_rows_as_an_empty_array(tmp_path):
    with_store(tmp_path, nothing)
    assert json.loads(ask(tmp_path, "-o", "json", "select 1 as x, 2 as x, x'0aff' as b, null as n").stdout) == [
        {"x": 1, "x_2": 2, "b": "0aff", "n": None}
    ]
    assert json.loads(ask(tmp_path, "-o", "json", "select 1 where 0").stdout) == []
    assert json.loads(ask(tmp_path, "-o", "json", "select value from json_each('[1]')").stdout) == [{"value": 1}]
    assert ask(tmp_path, "-o", "json", "select strftime('%Y', updated) from v_status").returncode == 0


WRITING = [
    "delete from apps",
    "create table t (x)",
    "drop view v_status",
    "attach database '{dir}/new.db' as other",
    "vacuum into '{dir}/new.db'",
    "pragma journal_mode = delete",
    "pragma query_only = off",
    "begin immediate",
    "update sqlite_master set sql = 'x'",
    "select load_extension('x')",
]


@pytest.mark.parametrize("query", WRITING)
def test_nothing_can_be_changed_through_it(tmp_path, query):
    with_store(tmp_path, nothing)
    before = (tmp_path / "agent.db").read_bytes()
    done = ask(tmp_path, query.format(dir=tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith("boreas-agent: cannot run ")
    assert (tmp_path / "agent.db").read_bytes() == before
    assert not (tmp_path / "new.db").exists()


def test_a_mistake_in_the_query_is_one_line(tmp_path):
    with_store(tmp_path, nothing)
    assert ask(tmp_path, "select nope from v_status").stderr == "boreas-agent: cannot run the query: no such column: nope\n"
    assert (
        ask(tmp_path, "select 1; select 2").stderr == "boreas-agent: cannot run the query: You can only execute one statement at a time.\n"
    )
    assert "there is no query" in ask(tmp_path, stdin="").stderr


def test_where_there_is_no_database_it_says_where_it_looked(tmp_path):
    done = ask(tmp_path, APPS)
    assert done.stderr == f"boreas-agent: cannot find a database at {tmp_path}/agent.db; --work-dir names the work dir of the agent\n"
    assert done.returncode == 1
    assert list(tmp_path.iterdir()) == []
