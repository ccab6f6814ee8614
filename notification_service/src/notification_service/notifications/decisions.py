"""What routing decided, kept for the trace: each different outcome of a notification once, and who has which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import Executable, FromClause, Integer, String, Table, Text, Uuid, select, true
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.db.base import Json
from notification_service.db.dialects import dialect_insert
from notification_service.db.rows import RowsStatement, RowTypes
from notification_service.notifications.entity import Notification
from notification_service.notifications.models import decision_records, decision_users, notification_contents
from notification_service.notifications.search import store_words
from notification_service.words import find_words

Record = list[dict[str, Any]]


async def keep_decisions(
    connection: AsyncConnection, decided: Sequence[tuple[UUID, Sequence[Record], Mapping[UUID, int]]]
) -> None:
    """Store records by notification, and the numbers of users whose record is not the first. Two statements at most.

    A notification that is decided in pieces adds its records behind those it has; see `read_records`.
    """
    records = [
        (notification_id, number, record)
        for notification_id, found, _ in decided
        for number, record in enumerate(found)
    ]
    if records:
        await _INSERT_RECORDS.execute(connection, records)
    users = [
        (notification_id, user_id, number)
        for notification_id, _, numbers in decided
        for user_id, number in numbers.items()
    ]
    if users:
        await _INSERT_USERS.execute(connection, users)


def _build_insert(table: Table, dialect_name: str, rows: FromClause) -> Executable:
    insertion: Executable = (
        dialect_insert(dialect_name, table)
        .from_select([column.name for column in rows.c], select(*rows.c).where(true()))
        .on_conflict_do_nothing()
    )
    return insertion


_INSERT_RECORDS = RowsStatement(
    {"notification_id": Uuid(), "number": Integer(), "channels": Json}, partial(_build_insert, decision_records)
)
_INSERT_USERS = RowsStatement(
    {"notification_id": Uuid(), "user_id": Uuid(), "number": Integer()}, partial(_build_insert, decision_users)
)


async def read_records(connection: AsyncConnection, notification_id: UUID) -> list[Record]:
    """All records of a notification, by number."""
    rows = await connection.execute(
        select(decision_records.c.channels)
        .where(decision_records.c.notification_id == notification_id)
        .order_by(decision_records.c.number)
    )
    return list(rows.scalars())


async def find_record(connection: AsyncConnection, notification_id: UUID, user_id: UUID) -> Record | None:
    """What was decided for one user; None: nothing but the ordinary."""
    columns = decision_users.c
    number = (
        await connection.execute(
            select(columns.number).where(columns.notification_id == notification_id, columns.user_id == user_id)
        )
    ).scalar_one_or_none()
    found = await connection.execute(
        select(decision_records.c.channels).where(
            decision_records.c.notification_id == notification_id, decision_records.c.number == (number or 0)
        )
    )
    record: Record | None = found.scalar_one_or_none()
    return record


async def insert_contents(connection: AsyncConnection, shown: Sequence[Notification]) -> None:
    """Store the texts of variants, each once."""
    unique = {(each.id, each.variant): each for each in shown if each.variant is not None}
    if not unique:
        return
    records = [
        (each.id, each.variant, each.title, each.body, find_words(each.title, each.body)) for each in unique.values()
    ]
    await _INSERT_CONTENTS.execute(connection, records)


_CONTENT_TYPES: RowTypes = {
    "notification_id": Uuid(),
    "variant": String(),
    "title": Text(),
    "body": Text(),
    "search": Text(),
}


def _build_insert_contents(dialect_name: str, rows: FromClause) -> Executable:
    insertion: Executable = (
        dialect_insert(dialect_name, notification_contents)
        .from_select(list(_CONTENT_TYPES), select(*store_words(dialect_name, rows)).where(true()))
        .on_conflict_do_nothing()
    )
    return insertion


_INSERT_CONTENTS = RowsStatement(_CONTENT_TYPES, _build_insert_contents)
