"""The few statements whose constructs differ between SQLite and PostgreSQL."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Table, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection


def insert_into(connection: AsyncConnection, table: Table) -> Any:
    """An INSERT that knows ON CONFLICT, of the connection's dialect (both spell it alike)."""
    return dialect_insert(connection.dialect.name, table)


def dialect_insert(dialect_name: str, table: Table) -> Any:
    """The same, for statements that are put together beforehand."""
    return sqlite.insert(table) if dialect_name == "sqlite" else postgresql.insert(table)


async def try_lock(connection: AsyncConnection, number: int) -> bool:
    """Take the lock of this number until the transaction ends, unless somebody has it; answers whether.

    On SQLite, which belongs to one machine and one installation, everybody gets it.
    """
    if connection.dialect.name == "sqlite":
        return True
    return bool((await connection.execute(select(func.pg_try_advisory_xact_lock(number)))).scalar_one())
