"""What is remembered of the node itself, whatever apps it has: whether it is drained."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "node", sa.Column("name", sa.Text, primary_key=True), sa.Column("value", sa.Text, nullable=False), sqlite_with_rowid=False
    )
