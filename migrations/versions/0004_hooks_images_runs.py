"""Hooks: of each head, the runs beside which post_start hooks were carried out. Images: the very bytes that a deployment ran, and where
they can be fetched again; and those that the agent has pulled. Runs of scripts, those that are scheduled and were not made among them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add columns and tables. What runs already was made without hooks; what it ran is not known, what was pulled before is nobody's,
    and runs from before are in ``exits``."""
    for column in ("hooked", "good_digest"):
        op.add_column("heads", sa.Column(column, sa.Text))
    for column in ("image", "digest"):
        op.add_column("deployments", sa.Column(column, sa.Text))
    op.create_table(
        "images",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("image", sa.Text, nullable=False),
        sa.Column("names", sa.Text, nullable=False),
        sa.Column("pulled_at", sa.Text, nullable=False),
        sa.Column("idle", sa.Float, nullable=False),
        sa.Column("removed_at", sa.Text),
        sa.UniqueConstraint("image", name="images_image"),
    )
    op.create_table(
        "runs",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("app", sa.Text, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("run", sa.Text, nullable=False),
        sa.Column("scheduled_at", sa.Text),
        sa.Column("started_at", sa.Text),
        sa.Column("finished_at", sa.Text),
        sa.Column("exit_code", sa.Integer),
        sa.Column("outcome", sa.Text),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("output_tail", sa.Text, nullable=False),
        sa.UniqueConstraint("app", "revision", "run", name="runs_run"),
    )
    op.create_index("runs_app", "runs", ["app", "id"])
