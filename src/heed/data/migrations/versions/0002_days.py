"""An index for what a person did on a day, which a daily cap counts at every claim."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the index."""
    op.create_index("ix_judgment_day", "judgment", ["project", "person", "created_at"])
