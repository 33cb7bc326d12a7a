"""Deployments: the one under way and the revision to go back to with each head, and the ended ones in a table."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table and the columns. What runs already has no deployment, and nothing to go back to yet."""
    op.create_table(
        "deployments",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("app", sa.Text, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("started_at", sa.Text, nullable=False),
        sa.Column("finished_at", sa.Text, nullable=False),
        sa.Column("seconds", sa.Float, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("phases", sa.Text, nullable=False),
        sa.UniqueConstraint("app", "number", name="deployments_app"),
    )
    for column in (sa.Column("deployment", sa.Text), sa.Column("good", sa.Integer), sa.Column("good_image", sa.Text)):
        op.add_column("heads", column)
