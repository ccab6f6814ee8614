"""The few statements whose constructs differ between SQLite and PostgreSQL."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection


def insert_into(connection: AsyncConnection, table: Table) -> Any:
    """An INSERT that knows ON CONFLICT, of the connection's dialect (both spell it alike)."""
    return sqlite.insert(table) if connection.dialect.name == "sqlite" else postgresql.insert(table)
