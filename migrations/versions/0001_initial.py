"""The first schema. There is no way down: an older agent refuses a newer file, and a copy is kept before every upgrade."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "revisions",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("app", sa.Text, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("record", sa.Text, nullable=False),
        sa.Column("spec", sa.Text, nullable=False),
        sa.Column("submitted_at", sa.Text, nullable=False),
        sa.Column("submitted_by", sa.Text, nullable=False),
        sa.UniqueConstraint("app", "revision", name="revisions_app"),
    )
    op.create_table(
        "heads",
        sa.Column("app", sa.Text, primary_key=True),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("gone", sa.Integer, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("level", sa.Integer, nullable=False),
        sa.Column("msg", sa.Text, nullable=False),
        sa.Column("updated", sa.Text, nullable=False),
        sa.Column("proven", sa.Text, nullable=False),
        sa.Column("attempts", sa.Text, nullable=False),
        sa.Column("hold", sa.Text),
        sa.Column("unknown_since", sa.Text),
        sa.Column("homes", sa.Text, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "health",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("app", sa.Text, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("at", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("level", sa.Integer, nullable=False),
        sa.Column("msg", sa.Text, nullable=False),
    )
    op.create_index("health_app", "health", ["app", "id"])
    op.create_table(
        "exits",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("app", sa.Text, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("replica", sa.Integer, nullable=False),
        sa.Column("run", sa.Text, nullable=False),
        sa.Column("started_at", sa.Text),
        sa.Column("exited_at", sa.Text, nullable=False),
        sa.Column("exit_code", sa.Integer),
        sa.Column("signal", sa.Text),
        sa.Column("oom_killed", sa.Integer, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("seconds", sa.Float),
        sa.Column("output_tail", sa.Text, nullable=False),
        sa.UniqueConstraint("app", "revision", "replica", "run", name="exits_run"),
    )
    op.create_table(
        "events",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("at", sa.Text, nullable=False),
        sa.Column("app", sa.Text),
        sa.Column("revision", sa.Integer),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("events_app", "events", ["app", "id"])
