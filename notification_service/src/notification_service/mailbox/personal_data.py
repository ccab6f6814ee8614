"""The mailbox as personal data: a user's items and their state, streams, and how far their devices have come."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import and_, delete, exists, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.identity.personal_data import PersonalData, Subject, as_mapping
from notification_service.mailbox.models import broadcast_states, device_cursors, items, stream_marks, streams
from notification_service.notifications.models import notification_contents, notifications

_TABLES = (items, stream_marks, broadcast_states, device_cursors, streams)


async def erase(connection: AsyncConnection, subject: Subject) -> Mapping[str, int]:
    """Delete all of it, and the texts that were rendered for this user's items and no other."""
    contents = await _delete_own_contents(connection, subject.user_id)
    counts = {"contents": contents}
    for table in _TABLES:
        deleted = await connection.execute(delete(table).where(table.c.user_id == subject.user_id))
        counts[str(table.name)] = deleted.rowcount
    return counts


async def _delete_own_contents(connection: AsyncConnection, user_id: UUID) -> int:
    own, other = items.alias("own"), items.alias("other")
    is_this = and_(
        own.c.notification_id == notification_contents.c.notification_id,
        own.c.variant == notification_contents.c.variant,
    )
    is_also = and_(
        other.c.notification_id == notification_contents.c.notification_id,
        other.c.variant == notification_contents.c.variant,
        other.c.user_id != user_id,
    )
    deleted = await connection.execute(
        delete(notification_contents).where(
            exists().where(own.c.user_id == user_id, is_this), ~exists().where(is_also).correlate(notification_contents)
        )
    )
    return deleted.rowcount


async def export(connection: AsyncConnection, user_id: UUID) -> AsyncIterator[Mapping[str, Any]]:
    """Every item with what it said and what became of it, the oldest first."""
    told, text = notifications.c, notification_contents.c
    query = (
        select(
            items.c.notification_id.label("id"),
            told.kind,
            told.event_type,
            func.coalesce(text.title, told.title).label("title"),
            func.coalesce(text.body, told.body).label("body"),
            told.data,
            told.category,
            told.tags,
            told.sender_name,
            items.c.created_at,
            items.c.expires_at,
            items.c.read_at,
            items.c.seen_at,
            items.c.archived_at,
            items.c.snoozed_until,
            items.c.deleted_at,
        )
        .join(notifications, told.id == items.c.notification_id, isouter=True)
        .join(
            notification_contents,
            and_(text.notification_id == items.c.notification_id, text.variant == items.c.variant),
            isouter=True,
        )
        .where(items.c.user_id == user_id)
        .order_by(items.c.seq)
    )
    async for row in await connection.stream(query):
        yield as_mapping(row)


async def export_devices(connection: AsyncConnection, user_id: UUID) -> AsyncIterator[Mapping[str, Any]]:
    """The names devices gave themselves, and when they were last heard of."""
    columns = device_cursors.c
    query = select(columns.device_id, columns.updated_at).where(columns.user_id == user_id).order_by(columns.device_id)
    async for row in await connection.stream(query):
        yield as_mapping(row)


async def export_broadcasts(connection: AsyncConnection, user_id: UUID) -> AsyncIterator[Mapping[str, Any]]:
    """What the user did with broadcasts."""
    columns = broadcast_states.c
    query = (
        select(
            columns.notification_id,
            columns.read_at,
            columns.seen_at,
            columns.archived_at,
            columns.snoozed_until,
            columns.deleted_at,
        )
        .where(columns.user_id == user_id)
        .order_by(columns.broadcast_seq)
    )
    async for row in await connection.stream(query):
        yield as_mapping(row)


async def _erased_above(_connection: AsyncConnection, _subject: Subject) -> Mapping[str, int]:
    return {}


PERSONAL_DATA = (
    PersonalData("inbox", _TABLES, erase, export),
    PersonalData("devices", (), _erased_above, export_devices),
    PersonalData("broadcasts", (), _erased_above, export_broadcasts),
)
