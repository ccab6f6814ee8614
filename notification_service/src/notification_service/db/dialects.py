"""The few statements whose constructs differ between SQLite and PostgreSQL."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection


def insert_into(connection: AsyncConnection, table: Table) -> Any:
    """An INSERT that knows ON CONFLICT, of the connection's dialect (both spell it alike)."""
    return dialect_insert(connection.dialect.name, table)


def dialect_insert(dialect_name: str, table: Table) -> Any:
    """The same, for statements that are put together beforehand."""
    return sqlite.insert(table) if dialect_name == "sqlite" else postgresql.insert(table)
