"""Statements over rows: the same answers by SQLAlchemy and by the driver, the same errors, on both databases."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import (
    BigInteger,
    Executable,
    FromClause,
    Integer,
    String,
    Table,
    Uuid,
    bindparam,
    func,
    insert,
    select,
    text,
)
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.db.base import Json, UtcDateTime
from notification_service.db.direct import find_driver
from notification_service.db.engine import Database
from notification_service.db.rows import RowsStatement, RowTypes
from notification_service.entrypoints import tables
from notification_service.errors import Unavailable

AT = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)
TYPES: RowTypes = {
    "user_id": Uuid(),
    "number": Integer(),
    "big": BigInteger(),
    "name": String(),
    "moment": UtcDateTime(),
    "data": Json,
}
RECORDS: Sequence[tuple[Any, ...]] = [
    (UUID(int=1), 1, 2**40, "Ada \u2603", AT, {"a": [1, None, "\u2603"]}),
    (UUID(int=2), -1, 0, "", AT + timedelta(microseconds=1), [True]),
    (UUID(int=3), None, None, None, None, None),
]
_READ_BACK = RowsStatement(TYPES, lambda _, rows: select(*rows.c, bindparam("extra", type_=Integer())))


def _build_insertion(_dialect: str, rows: FromClause, table: Table) -> Executable:
    return insert(table).from_select(["tenant", "top_seq"], select(*rows.c))


_INSERT = RowsStatement(
    {"tenant": String(), "top_seq": BigInteger()}, partial(_build_insertion, table=tables.broadcast_streams)
)


async def begin(connection: AsyncConnection, database: Database) -> None:
    """From here on statements go to PostgreSQL's driver."""
    assert database.is_sqlite or find_driver(connection) is None
    await connection.execute(text("SELECT 1"))
    assert database.is_sqlite or find_driver(connection) is not None


async def test_rows_come_back_as_they_went(database: Database) -> None:
    async with database.read() as connection:
        first = await _READ_BACK.execute(connection, RECORDS, extra=7)
        await connection.execute(text("SELECT 1"))
        second = await _READ_BACK.execute(connection, RECORDS, extra=8)
    for found, extra in ((first, 7), (second, 8)):
        assert [tuple(row) for row in found] == [(*record, extra) for record in RECORDS]
        assert (found[0].name, found[0].moment, found[0].data) == ("Ada \u2603", AT, {"a": [1, None, "\u2603"]})


async def add(database: Database, tenant: str, *, fail: bool = False) -> None:
    """Write a row by a transaction's second statement."""
    async with database.write() as connection:
        await begin(connection, database)
        assert not await _INSERT.execute(connection, [(tenant, 1)])
        assert await connection.scalar(select(tables.broadcast_streams.c.top_seq)) == 1
        if fail:
            raise ZeroDivisionError


async def count(database: Database) -> int | None:
    async with database.read() as connection:
        return await connection.scalar(select(func.count()).select_from(tables.broadcast_streams))


async def test_what_is_written_is_part_of_the_transaction(database: Database) -> None:
    with pytest.raises(ZeroDivisionError):
        await add(database, "a", fail=True)
    assert await count(database) == 0
    await add(database, "a")
    assert await count(database) == 1


async def test_errors_are_those_of_sqlalchemy(database: Database) -> None:
    await add(database, "a")
    with pytest.raises(IntegrityError):
        await add(database, "a")
    if not database.is_sqlite:
        with pytest.raises(DBAPIError) as caught:
            await add(database, "x" * 64)
        assert not isinstance(caught.value, IntegrityError)
    assert await count(database) == 1


async def cut_off(database: Database) -> None:
    async with database.write() as connection:
        await begin(connection, database)
        mine = await connection.scalar(text("SELECT pg_backend_pid()"))
        async with database.write() as other:
            await other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": mine})
        await _INSERT.execute(connection, [("a", 1)])


@pytest.mark.parametrize("migrated_url", ["postgresql"], indirect=True)
@pytest.mark.req("J02")
async def test_a_lost_connection_is_unavailable_once_and_then_replaced(database: Database) -> None:
    with pytest.raises(Unavailable):
        await cut_off(database)
    await add(database, "a")
    assert await count(database) == 1


@pytest.mark.parametrize("migrated_url", ["postgresql"], indirect=True)
async def test_a_single_statement_is_a_transaction_of_its_own(database: Database) -> None:
    async with database.single() as connection:
        assert find_driver(connection) is not None
        await _INSERT.execute(connection, [("a", 1)])
        assert await count(database) == 1
        with pytest.raises(IntegrityError):
            await _INSERT.execute(connection, [("b", 1), ("a", 1)])
        assert await connection.scalar(select(func.count()).select_from(tables.broadcast_streams)) == 1
    # The same connections serve transactions afterwards.
    with pytest.raises(ZeroDivisionError):
        await add(database, "c", fail=True)
    assert await count(database) == 1
