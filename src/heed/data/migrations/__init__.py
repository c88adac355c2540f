"""The history of the label store's tables, applied by `heed.data.store.migrate` through alembic."""
