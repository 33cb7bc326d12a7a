"""Alembic's way in. The caller hands over its connection and its transaction, so an upgrade happens wholly or not at all."""

from __future__ import annotations

from alembic import context

from boreas_agent.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
