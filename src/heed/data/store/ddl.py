"""How the tables are written: their names, JSON columns, and the columns that recur."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Dialect,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Text,
    TypeDecorator,
    text,
)


def canonical(value: Any) -> str:
    """Write a value as the one JSON text that equal values share (sorted keys, no spaces)."""
    return json.dumps(
        value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False
    )


class CanonicalJson(TypeDecorator[Any]):
    """A JSON value in a text column, written canonically."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        """Write the value."""
        return None if value is None else canonical(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        """Read the value."""
        return None if value is None else json.loads(value)


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def id_column() -> Column[Any]:
    """The primary key `id`."""
    return Column("id", String(64), primary_key=True)


def time_column(name: str = "created_at", nullable: bool = False) -> Column[Any]:
    """A time in milliseconds."""
    return Column(name, BigInteger, nullable=nullable)


def reference(name: str, table: str, nullable: bool = False) -> Column[Any]:
    """A reference to the `id` of another table."""
    return Column(name, String(64), ForeignKey(f"{table}.id"), nullable=nullable)


def json_column(name: str, nullable: bool = False) -> Column[Any]:
    """A JSON value."""
    return Column(name, CanonicalJson, nullable=nullable)


def number_column(name: str, default: int = 0) -> Column[Any]:
    """An integer that is 0 unless said."""
    return Column(name, Integer, nullable=False, server_default=text(str(default)))


def one_of(name: str, *values: str) -> CheckConstraint:
    """A check that a column holds one of these words."""
    allowed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{name} IN ({allowed})", name=f"{name}_known")
