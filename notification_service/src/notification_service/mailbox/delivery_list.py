"""In-app deliveries of many notifications in one list, the newest first."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Select, and_, case, exists, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.mailbox.deliveries import COLLAPSED, _describe, _status, select_delivered_at
from notification_service.mailbox.models import device_cursors, items, streams
from notification_service.notifications.models import notifications
from shared_contracts.delivery_state import DeliveryState


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which deliveries.

    Attributes:
        before: (created, notification, user) of the last one of the page before.
        sender_id: Only what this caller sent.
        since, until: Created at the first or later, and before the second.
    """

    tenant: str
    limit: int
    before: tuple[datetime, UUID, UUID] | None = None
    sender_id: UUID | None = None
    notification_id: UUID | None = None
    user_id: UUID | None = None
    status: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class _Parent:
    """What the description of a delivery reads of its notification."""

    id: UUID
    dispatched_at: datetime | None


async def list_in_app(connection: AsyncConnection, wanted: Wanted, *, now: datetime) -> list[dict[str, Any]]:
    """Deliveries into mailboxes. Broadcasts, stored once for everybody, are left out."""
    rows = await connection.execute(_select(wanted, now))
    parents: Any = _Parent
    return [_describe(parents(row.notification_id, row.dispatched_at), row) for row in rows]


def _select(wanted: Wanted, now: datetime) -> Select[Any]:
    columns = items.c
    is_sent = exists().where(device_cursors.c.user_id == columns.user_id, device_cursors.c.sent_seq >= columns.seq)
    is_queued = and_(streams.c.queue_declared, notifications.c.dispatched_at.is_not(None))
    is_acked = streams.c.acked_seq >= columns.seq
    is_gone = columns.deleted_at.is_not(None)
    state = case(
        (and_(is_gone, columns.last_change == "recalled"), DeliveryState.RECALLED.value),
        (and_(is_gone, columns.last_change == COLLAPSED, ~is_acked), DeliveryState.SUPPRESSED.value),
        else_=_status(is_acked, is_sent, is_queued, columns.expires_at, now).element,
    )
    query = (
        select(
            columns.user_id,
            columns.notification_id,
            state.label("status"),
            columns.created_at,
            columns.seen_at,
            columns.read_at,
            columns.archived_at,
            select_delivered_at(columns.user_id, device_cursors.c.acked_seq >= columns.seq),
            notifications.c.dispatched_at,
        )
        .select_from(
            items.join(streams, streams.c.user_id == columns.user_id).join(
                notifications, notifications.c.id == columns.notification_id
            )
        )
        .where(notifications.c.tenant == wanted.tenant)
    )
    for column, value in (
        (notifications.c.sender_id, wanted.sender_id),
        (columns.notification_id, wanted.notification_id),
        (columns.user_id, wanted.user_id),
        (state, wanted.status),
    ):
        if value is not None:
            query = query.where(column == value)
    if wanted.since is not None:
        query = query.where(columns.created_at >= wanted.since)
    if wanted.until is not None:
        query = query.where(columns.created_at < wanted.until)
    place = (columns.created_at, columns.notification_id, columns.user_id)
    if wanted.before is not None:
        query = query.where(tuple_(*place) < tuple_(*wanted.before))
    return query.order_by(*(column.desc() for column in place)).limit(wanted.limit)
