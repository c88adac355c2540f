"""Run by alembic: apply the migrations on the connection that `migrate` hands in."""

from __future__ import annotations

from alembic import context

from heed.data.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    # The unit of work of `migrate` is the transaction: all migrations, or none.
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
