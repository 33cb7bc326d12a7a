"""Bringing the file's schema to the one this agent knows, before anything reads it.

Alembic does the work; importing it takes time and memory, so where the file is already up to date it is left alone.
An upgrade is one transaction, and an existing file is copied before it.
"""

from __future__ import annotations

import importlib.util
import os
import sqlite3
from contextlib import closing
from importlib import resources
from pathlib import Path
from typing import Any

from boreas_agent.errors import StartupError
from boreas_agent.store.schema import SCHEMA_REVISION

KEPT_COPIES = 3
"""So many copies of older schemas stay beside the database, the newest."""
_PACKAGE = "boreas_agent.migrations"


def schema_revision(path: Path) -> str | None:
    """The schema revision that the file says it has, None for an empty one. Changes nothing. Raises sqlite3.Error, StartupError."""
    if not path.exists() or path.stat().st_size == 0:
        return None
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "alembic_version" in tables:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            return str(row[0]) if row else None
    if tables:
        raise StartupError(
            f"cannot use {path}: it is a database of another program (its tables: {', '.join(sorted(tables))}); move it away"
        )
    return None


def bring_up_to_date(path: Path, connection: sqlite3.Connection, scripts: Path | None = None, target: str = SCHEMA_REVISION) -> None:
    """Upgrade the database to ``target``, keeping a copy of what was there. Raises StartupError, sqlite3.Error."""
    current = schema_revision(path)
    if current == target:
        return
    scripts = scripts or migrations()
    if current is not None:
        _known_or_refuse(path, current, scripts)
        _keep_copy(path, connection, current)
    _upgrade(connection, scripts, target)


def refuse_newer(path: Path) -> None:
    """Raise StartupError where the file was made by a newer agent, before anything is opened for writing."""
    current = schema_revision(path)
    if current not in (None, SCHEMA_REVISION):
        _known_or_refuse(path, str(current), migrations())


def migrations() -> Path:
    """The folder of the migrations: inside the installed package, or beside it in a source checkout."""
    if importlib.util.find_spec(_PACKAGE) is not None:
        return Path(str(resources.files(_PACKAGE)))
    return Path(str(resources.files("boreas_agent"))).parent / "migrations"


def _known_or_refuse(path: Path, current: str, scripts: Path) -> None:
    from alembic.script import ScriptDirectory  # noqa: PLC0415  see the module's docstring
    from alembic.util import CommandError  # noqa: PLC0415

    try:
        ScriptDirectory(str(scripts)).get_revision(current)
    except CommandError:
        raise StartupError(
            f"cannot use {path}: its schema revision {current} was made by a newer agent (this one knows {SCHEMA_REVISION}); "
            f"install that agent again, or move the file away"
        ) from None


def _keep_copy(path: Path, connection: sqlite3.Connection, current: str) -> None:
    """``agent.db.before-REVISION``. Whole or not there: written under another name first."""
    kept = path.with_name(f"{path.name}.before-{current}")
    partial = kept.with_name(kept.name + ".partial")
    partial.unlink(missing_ok=True)
    os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    with closing(sqlite3.connect(partial)) as copy:
        connection.backup(copy)
    partial.replace(kept)
    copies = sorted(path.parent.glob(f"{path.name}.before-*"), key=lambda copy: copy.stat().st_mtime)
    for older in copies[:-KEPT_COPIES]:
        older.unlink(missing_ok=True)


def _upgrade(connection: sqlite3.Connection, scripts: Path, target: str) -> None:
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415
    from sqlalchemy import create_engine, event  # noqa: PLC0415
    from sqlalchemy.pool import StaticPool  # noqa: PLC0415

    engine = create_engine("sqlite://", creator=lambda: connection, poolclass=StaticPool)
    event.listen(engine, "begin", lambda opened: opened.exec_driver_sql("BEGIN IMMEDIATE"))
    config = Config()
    config.set_main_option("script_location", str(scripts).replace("%", "%%"))
    with engine.begin() as opened:
        config.attributes["connection"] = opened
        _drop_views(opened)
        command.upgrade(config, target)
        for statement in view_statements():
            opened.exec_driver_sql(statement)


def view_statements() -> list[str]:
    """The statements of ``views.sql``, one each."""
    text = resources.files("boreas_agent.store").joinpath("views.sql").read_text(encoding="utf-8")
    return [statement.strip() for statement in text.split(";") if statement.strip()]


def _drop_views(opened: Any) -> None:
    """SQLite refuses to change a table that a view would no longer fit."""
    for (name,) in opened.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'view'").all():
        opened.exec_driver_sql(f'DROP VIEW "{name}"')
