"""Digests, schedules and escalations as personal data."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import Text, cast, delete, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.digests.models import digest_items, digests, escalations, schedules
from notification_service.identity.personal_data import PersonalData, Subject, as_mapping, leave_out


async def erase(connection: AsyncConnection, subject: Subject) -> Mapping[str, int]:
    """Delete them; schedules of others that name the user go on without."""
    own = select(digests.c.id).where(digests.c.user_id == subject.user_id)
    await connection.execute(delete(digest_items).where(digest_items.c.digest_id.in_(own)))
    deleted = {
        str(table.name): (await connection.execute(delete(table).where(column == subject.user_id))).rowcount
        for table, column in (
            (digests, digests.c.user_id),
            (escalations, escalations.c.user_id),
            (schedules, schedules.c.sender_id),
        )
    }
    named = await connection.execute(
        select(schedules.c.id, schedules.c.request).where(
            or_(
                *(cast(schedules.c.request, Text).contains(each, autoescape=True) for each in subject.quoted_references)
            )
        )
    )
    alone, shared = [], 0
    for row in named.all():
        left = leave_out(row.request.get("recipients") or {}, subject.references)
        if left is None:
            alone.append(row.id)
            continue
        if left != row.request["recipients"]:
            request = {**row.request, "recipients": left}
            await connection.execute(update(schedules).where(schedules.c.id == row.id).values(request=request))
            shared += 1
    await connection.execute(delete(schedules).where(schedules.c.id.in_(alone)))
    return {**deleted, "schedules": deleted["schedules"] + len(alone), "schedules_shared": shared}


async def export(connection: AsyncConnection, user_id: UUID) -> AsyncIterator[Mapping[str, Any]]:
    """Digests that were made or are being collected."""
    columns = digests.c
    query = (
        select(columns.channel, columns.key, columns.opened_at, columns.due_at, columns.closed_at, columns.told_count)
        .where(columns.user_id == user_id)
        .order_by(columns.opened_at)
    )
    async for row in await connection.stream(query):
        yield as_mapping(row)


async def export_schedules(connection: AsyncConnection, user_id: UUID) -> AsyncIterator[Mapping[str, Any]]:
    """What the user has ordered to be sent later."""
    columns = schedules.c
    query = (
        select(columns.id, columns.request, columns.recurrence, columns.next_at, columns.created_at)
        .where(columns.sender_id == user_id)
        .order_by(columns.created_at)
    )
    async for row in await connection.stream(query):
        yield as_mapping(row)


async def _erased_above(_connection: AsyncConnection, _subject: Subject) -> Mapping[str, int]:
    return {}


PERSONAL_DATA = (
    PersonalData("digests", (digests, escalations, schedules), erase, export),
    PersonalData("schedules", (), _erased_above, export_schedules),
)
