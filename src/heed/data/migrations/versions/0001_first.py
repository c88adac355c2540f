"""The first tables: content, queue, people, work, and the log that cannot be rewritten."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None

_SQLITE = """
CREATE TRIGGER event_no_update BEFORE UPDATE ON event
BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END;

CREATE TRIGGER event_no_delete BEFORE DELETE ON event
BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END;

CREATE TRIGGER judgment_no_delete BEFORE DELETE ON judgment
BEGIN SELECT RAISE(ABORT, 'answers are kept'); END;

CREATE TRIGGER judgment_no_update BEFORE UPDATE ON judgment
WHEN NOT (
    OLD.state = 'standing' AND NEW.state IN ('replaced', 'withdrawn') AND {same}
)
BEGIN SELECT RAISE(ABORT, 'an answer changes by a new version only'); END;
"""
_KEPT = (
    "id", "project", "item", "person", "lease", "submission_id", "body_sha256", "role", "version",
    "replaces", "outcome", "side", "level", "scale", "answer", "shown", "timing", "client",
    "counted", "surplus", "practice", "late", "created_at", "seq",
)  # fmt: skip
_POSTGRESQL = """
CREATE FUNCTION heed_append_only() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'the log is append-only and answers are kept'; END $$;

CREATE TRIGGER event_no_change BEFORE UPDATE OR DELETE ON event
FOR EACH ROW EXECUTE FUNCTION heed_append_only();

CREATE TRIGGER event_no_truncate BEFORE TRUNCATE ON event
FOR EACH STATEMENT EXECUTE FUNCTION heed_append_only();

CREATE TRIGGER judgment_no_delete BEFORE DELETE ON judgment
FOR EACH ROW EXECUTE FUNCTION heed_append_only();

CREATE TRIGGER judgment_no_truncate BEFORE TRUNCATE ON judgment
FOR EACH STATEMENT EXECUTE FUNCTION heed_append_only();

CREATE FUNCTION heed_answer_is_kept() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN
    IF OLD.state = 'standing' AND NEW.state IN ('replaced', 'withdrawn')
        AND to_jsonb(OLD) - 'state' = to_jsonb(NEW) - 'state' THEN RETURN NEW;
    END IF;
    RAISE EXCEPTION 'an answer changes by a new version only';
END $$;

CREATE TRIGGER judgment_no_update BEFORE UPDATE ON judgment
FOR EACH ROW EXECUTE FUNCTION heed_answer_is_kept();
"""


def upgrade() -> None:
    """Make the tables, and the triggers that keep the log and old answers as they are."""
    bind = op.get_bind()
    tables = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    same = " AND ".join(f"NEW.{name} IS OLD.{name}" for name in _KEPT)
    own = _SQLITE.format(same=same) if bind.dialect.name == "sqlite" else _POSTGRESQL
    for statement in (*tables.split(";\n"), *own.split(";\n\n")):
        if statement.strip():
            bind.exec_driver_sql(statement.strip())
