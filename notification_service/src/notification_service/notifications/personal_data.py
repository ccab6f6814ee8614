"""Notifications as personal data: those sent to one person alone, and the names in all others."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import Text, Uuid, cast, delete, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.db.rows import make_rows
from notification_service.identity.personal_data import PersonalData, Subject, as_mapping, leave_out
from notification_service.notifications.models import (
    decision_records,
    decision_users,
    fanouts,
    notification_contents,
    notifications,
)
from notification_service.notifications.search import as_stored, forget_words
from notification_service.words import find_words

_WITHOUT_NAME = "Message"
"""The title of a message that had its sender's name for one."""


async def erase(connection: AsyncConnection, subject: Subject) -> Mapping[str, int]:
    """Delete what was sent to this user alone, and take the name out of what others got too, or got from them.

    One pass over the table: recipients are kept as they were given, and no index would be worth its writes for this.
    """
    columns = notifications.c
    named = await connection.execute(
        select(columns.id, columns.recipients, columns.problems).where(
            or_(
                *(
                    cast(column, Text).contains(each, autoescape=True)
                    for each in subject.quoted_references
                    for column in (columns.recipients, columns.problems)
                )
            )
        )
    )
    alone, shared = [], 0
    for row in named.all():
        left = leave_out(row.recipients, subject.references)
        if left is None:
            alone.append(row.id)
            continue
        problems = [each for each in row.problems or () if each.get("recipient") not in subject.references]
        values = {"recipients": left, "problems": problems if row.problems is not None else None}
        await connection.execute(update(notifications).where(columns.id == row.id).values(**values))
        shared += 1
    for table in (notification_contents, decision_records, fanouts):
        await connection.execute(delete(table).where(table.c.notification_id.in_(alone)))
    await connection.execute(delete(notifications).where(columns.id.in_(alone)))
    await _take_name_out_of_titles(connection, subject.user_id)
    sent = await connection.execute(
        update(notifications).where(columns.sender_id == subject.user_id).values(sender_id=None, sender_name=None)
    )
    await forget_words(connection)
    decided = await connection.execute(delete(decision_users).where(decision_users.c.user_id == subject.user_id))
    return {
        "notifications": len(alone),
        "notifications_shared": shared,
        "notifications_sent": sent.rowcount,
        "decisions": decided.rowcount,
    }


async def _take_name_out_of_titles(connection: AsyncConnection, user_id: UUID) -> None:
    columns = notifications.c
    rows = await connection.execute(
        select(columns.id, columns.body).where(columns.sender_id == user_id, columns.title == columns.sender_name)
    )
    records = [(row.id, find_words(_WITHOUT_NAME, row.body)) for row in rows.all()]
    if records:
        source = make_rows(connection, {"id": Uuid(), "search": Text()}, records)
        await connection.execute(
            update(notifications)
            .where(columns.id == source.c.id)
            .values(title=_WITHOUT_NAME, search=as_stored(connection.dialect.name, source.c.search))
        )


async def export(connection: AsyncConnection, user_id: UUID) -> AsyncIterator[Mapping[str, Any]]:
    """What the user sent. What they received is shown with the mailbox."""
    columns = notifications.c
    shown = (
        columns.id,
        columns.kind,
        columns.event_type,
        columns.title,
        columns.body,
        columns.data,
        columns.recipients,
        columns.created_at,
    )
    query = select(*shown).where(columns.sender_id == user_id).order_by(columns.created_at)
    async for row in await connection.stream(query):
        yield as_mapping(row)


PERSONAL_DATA = PersonalData("sent_notifications", (notifications, decision_users), erase, export)
