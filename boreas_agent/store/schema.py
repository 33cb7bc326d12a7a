"""The tables, in SQLAlchemy Core; what users may rely on are the views in ``views.sql``.

Core describes them for the migrations; what is written on the hot path is made from the same tables in ``bulk.py``.
"""

from __future__ import annotations

from sqlalchemy import Column, Float, Index, Integer, MetaData, Table, Text, UniqueConstraint

SCHEMA_REVISION = "0004"
"""The newest migration. A file that is there already needs no migration, so alembic need not even be imported."""

metadata = MetaData()


def _text(name: str) -> Column[str]:
    return Column(name, Text, nullable=False)


def _number(name: str) -> Column[int]:
    return Column(name, Integer, nullable=False)


revisions = Table(
    "revisions",
    metadata,
    Column("id", Integer, primary_key=True),
    _text("app"),
    _number("revision"),
    _text("version"),
    _text("kind"),
    _text("type"),
    _text("record"),  # records.encode: with secrets, never shown
    _text("spec"),  # spec.masked_text: what people may see
    _text("submitted_at"),
    _text("submitted_by"),
    UniqueConstraint("app", "revision", name="revisions_app"),
)
"""Every recorded desired state; never rewritten, deleted only by retention."""

heads = Table(
    "heads",
    metadata,
    Column("app", Text, primary_key=True),
    _number("revision"),
    _number("gone"),
    _text("status"),
    _number("level"),
    _text("msg"),
    _text("updated"),
    _text("proven"),
    _text("attempts"),
    Column("hold", Text),
    Column("unknown_since", Text),
    _text("homes"),
    Column("deployment", Text),
    Column("good", Integer),
    Column("good_image", Text),
    Column("hooked", Text),
    Column("good_digest", Text),
    sqlite_with_rowid=False,
)
"""One row an app, rewritten in place. ``gone`` = 1: removed for good, kept so that no revision number is used twice.
``deployment`` is the current or last one, as JSON; ``good`` the revision to go back to, ``good_image`` the image it ran and
``good_digest`` where that can be fetched again; ``hooked`` says beside which runs post_start hooks were carried out, as JSON."""

deployments = Table(
    "deployments",
    metadata,
    Column("id", Integer, primary_key=True),
    _text("app"),
    _number("number"),
    _number("revision"),
    _text("version"),
    _text("kind"),
    _text("started_at"),
    _text("finished_at"),
    Column("seconds", Float, nullable=False),
    _text("outcome"),
    _text("reason"),
    _text("phases"),
    Column("image", Text),
    Column("digest", Text),
    UniqueConstraint("app", "number", name="deployments_app"),
)
"""Deployments that have ended; the one under way is in its app's head. ``number`` counts up per app with the revisions."""

health = Table(
    "health",
    metadata,
    Column("id", Integer, primary_key=True),
    _text("app"),
    _text("version"),
    _number("revision"),
    _text("at"),
    _text("status"),
    _number("level"),
    _text("msg"),
    Index("health_app", "app", "id"),
)

exits = Table(
    "exits",
    metadata,
    Column("id", Integer, primary_key=True),
    _text("app"),
    _number("revision"),
    _number("replica"),
    _text("run"),
    Column("started_at", Text),
    _text("exited_at"),
    Column("exit_code", Integer),
    Column("signal", Text),
    _number("oom_killed"),
    _text("reason"),
    Column("seconds", Float),
    _text("output_tail"),
    UniqueConstraint("app", "revision", "replica", "run", name="exits_run"),
)

runs = Table(
    "runs",
    metadata,
    Column("id", Integer, primary_key=True),
    _text("app"),
    _number("revision"),
    _text("run"),
    Column("scheduled_at", Text),
    Column("started_at", Text),
    Column("finished_at", Text),
    Column("exit_code", Integer),
    Column("outcome", Text),
    _text("reason"),
    _text("output_tail"),
    UniqueConstraint("app", "revision", "run", name="runs_run"),
    Index("runs_app", "app", "id"),
)
"""Runs of scripts, and scheduled ones that there were not; without an ``outcome`` as long as a run goes on."""

events = Table(
    "events",
    metadata,
    Column("id", Integer, primary_key=True),
    _text("at"),
    Column("app", Text),
    Column("revision", Integer),
    _text("kind"),
    _text("message"),
    Index("events_app", "app", "id"),
    sqlite_autoincrement=True,  # streams resume by id, so a deleted one must never come back
)

images = Table(
    "images",
    metadata,
    Column("id", Integer, primary_key=True),
    _text("image"),
    _text("names"),
    _text("pulled_at"),
    Column("idle", Float, nullable=False),
    Column("removed_at", Text),
    UniqueConstraint("image", name="images_image"),
)
"""Images that the agent brought onto the node; those it has removed again are history."""

node = Table("node", metadata, Column("name", Text, primary_key=True), _text("value"), sqlite_with_rowid=False)
"""What is remembered of the node itself, as JSON: ``drained`` (a ``model.Drained``, or null)."""
