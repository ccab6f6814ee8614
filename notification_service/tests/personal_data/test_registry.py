"""Every table that names users is looked after: filled for two people, erased for one, shown to one."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest
from sqlalchemy import Boolean, Column, DateTime, Integer, LargeBinary, String, Table, Uuid, insert, select

from notification_service.db.base import UtcDateTime
from notification_service.db.engine import Database
from notification_service.entrypoints.personal_data import PERSONAL_DATA
from notification_service.entrypoints.tables import metadata
from notification_service.identity.personal_data import Subject

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
OWNERS = {"user_id", "sender_id", "caller_id", "author_id", "actor_id"}
NOT_PERSONAL = {
    # Itself the note of an erasure: an id, a tenant, counts.
    "personal_data_erasures",
}
LOOKED_AFTER = [table for part in PERSONAL_DATA for table in part.tables]


def owner_of(table: Table) -> Column[Any] | None:
    if table.name == "identity_users":
        return table.c.id
    return next((column for column in table.columns if column.name in OWNERS and isinstance(column.type, Uuid)), None)


def make_row(table: Table, owner: UUID) -> dict[str, Any]:
    """Something in every column that must have something."""
    row: dict[str, Any] = {}
    for column in table.columns:
        if column is owner_of(table):
            row[column.name] = owner
        elif not column.nullable and column.server_default is None:
            row[column.name] = make_value(column)
    return row


def make_value(column: Column[Any]) -> Any:
    match column.type:
        case Uuid():
            return uuid4()
        case String():
            return uuid4().hex[: column.type.length or 32]
        case Boolean():
            return True
        case UtcDateTime() | DateTime():
            return NOW
        case LargeBinary():
            return b"{}"
        case Integer():
            return 1
        case _:
            return {} if column.name not in {"roles", "tags", "actions"} else []


def test_every_table_that_names_users_is_looked_after() -> None:
    naming = {table.name for table in metadata.tables.values() if owner_of(table) is not None}
    assert naming - {table.name for table in LOOKED_AFTER} == NOT_PERSONAL


async def count(database: Database, table: Table, owner: UUID) -> int:
    column = owner_of(table)
    assert column is not None
    async with database.read() as connection:
        return len((await connection.execute(select(column).where(column == owner))).all())


@pytest.mark.req("A20")
async def test_the_erased_ones_rows_go_and_nobody_elses(database: Database) -> None:
    gone, stays = uuid4(), uuid4()
    tables = [table for table in LOOKED_AFTER if owner_of(table) is not None]
    async with database.write() as connection:
        for table in tables:
            await connection.execute(insert(table), [make_row(table, gone), make_row(table, stays)])
    assert all([await count(database, table, gone) == 1 for table in tables])

    subject = Subject(gone, "default", "customer-1")
    async with database.write() as connection:
        counts = {
            name: found for part in PERSONAL_DATA for name, found in (await part.erase(connection, subject)).items()
        }
        again = [found for part in PERSONAL_DATA for found in (await part.erase(connection, subject)).values()]

    left = {table.name: (await count(database, table, gone), await count(database, table, stays)) for table in tables}
    assert set(left.values()) == {(0, 1)}, left
    assert sum(counts.values()) == len(tables)
    assert not any(again)


async def test_an_export_shows_the_own_rows_and_no_secret(database: Database) -> None:
    mine, other = uuid4(), uuid4()
    tables = [table for table in LOOKED_AFTER if owner_of(table) is not None]
    async with database.write() as connection:
        for table in tables:
            await connection.execute(insert(table), [make_row(table, mine), make_row(table, other)])
    shown: dict[str, list[dict[str, Any]]] = {}
    async with database.read() as connection:
        for part in PERSONAL_DATA:
            if part.export is not None:
                rows = [json.loads(orjson.dumps(row, default=str)) async for row in part.export(connection, mine)]
                shown[part.name] = rows
    assert {name for name, rows in shown.items() if len(rows) != 1} == set()
    assert {"profile", "groups", "inbox", "devices", "preferences", "contacts", "deliveries"} <= shown.keys()
    assert not {"secret", "address", "address_hash", "code_hash"} & {key for rows in shown.values() for key in rows[0]}
    assert str(other) not in json.dumps(shown)
