"""How far the in-app delivery of a notification has come, for each recipient. Nothing is stored for it: the item's
number and the user's acknowledgements tell.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, Label, Select, and_, case, exists, func, literal, select
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.clock import format_time
from notification_service.db.base import AnyRow
from notification_service.identity.models import users
from notification_service.mailbox.models import broadcast_states, broadcasts, device_cursors, items, streams
from shared_contracts.delivery_state import DeliveryState
from shared_contracts.error_codes import Reason

IN_APP: Final = "in_app"
COLLAPSED: Final = "collapsed"
_REASONS: Final = MappingProxyType(
    {
        DeliveryState.EXPIRED.value: Reason.EXPIRED,
        DeliveryState.RECALLED.value: Reason.RECALLED,
        # The only way to be suppressed after it was kept.
        DeliveryState.SUPPRESSED.value: Reason.COLLAPSED,
    }
)
_PROBLEMS: Final = MappingProxyType(
    {
        Reason.UNKNOWN_RECIPIENT.value: "no such recipient",
        Reason.RECIPIENT_INACTIVE.value: "the recipient was not active",
    }
)


@dataclass(frozen=True, slots=True)
class DeliveryPage:
    """Deliveries in the order of the users' ids."""

    items: list[dict[str, Any]]
    next_user: UUID | None


async def count_by_state(connection: AsyncConnection, notification: AnyRow, *, now: datetime) -> dict[str, int]:
    """How many recipients are in which state."""
    query = _select_deliveries(notification, now).subquery()
    rows = await connection.execute(select(query.c.status, func.count().label("number")).group_by(query.c.status))
    counts: dict[str, int] = {row.status: row.number for row in rows}
    if problems := notification.problems:
        counts[DeliveryState.FAILED] = counts.get(DeliveryState.FAILED, 0) + len(problems)
    return {str(state): count for state, count in sorted(counts.items())}


async def list_deliveries(
    connection: AsyncConnection, notification: AnyRow, *, after: UUID | None, limit: int, now: datetime
) -> DeliveryPage:
    """One page of deliveries; recipients that got nothing are on the first one."""
    query = _select_deliveries(notification, now)
    column = query.selected_columns["user_id"]
    query = query.order_by(column).limit(limit + 1)
    if after is not None:
        query = query.where(column > after)
    rows = (await connection.execute(query)).all()
    page = [] if after is not None else _describe_problems(notification)
    page += [_describe(notification, row) for row in rows[:limit]]
    return DeliveryPage(page, rows[limit - 1].user_id if len(rows) > limit else None)


async def find_delivery(
    connection: AsyncConnection, notification: AnyRow, user_id: UUID, *, now: datetime
) -> dict[str, Any] | None:
    """One user's in-app delivery; None when there is none."""
    query = _select_deliveries(notification, now)
    row = (await connection.execute(query.where(query.selected_columns["user_id"] == user_id))).one_or_none()
    return _describe(notification, row) if row is not None else None


def _select_deliveries(notification: AnyRow, now: datetime) -> Select[Any]:
    return _select_shared(notification, now) if notification.recipients["all"] else _select_own(notification, now)


def _select_own(notification: AnyRow, now: datetime) -> Select[Any]:
    is_sent = exists().where(device_cursors.c.user_id == items.c.user_id, device_cursors.c.sent_seq >= items.c.seq)
    is_queued = and_(streams.c.queue_declared, literal(notification.dispatched_at is not None))
    status = _status(streams.c.acked_seq >= items.c.seq, is_sent, is_queued, items.c.expires_at, now)
    gone = items.c.deleted_at.is_not(None)
    status = case(
        (and_(gone, items.c.last_change == "recalled"), DeliveryState.RECALLED.value),
        (
            and_(gone, items.c.last_change == COLLAPSED, streams.c.acked_seq < items.c.seq),
            DeliveryState.SUPPRESSED.value,
        ),
        else_=status.element,
    ).label("status")
    return (
        select(
            items.c.user_id,
            status,
            items.c.created_at,
            items.c.seen_at,
            items.c.read_at,
            items.c.archived_at,
            select_delivered_at(items.c.user_id, device_cursors.c.acked_seq >= items.c.seq),
        )
        .select_from(items.join(streams, streams.c.user_id == items.c.user_id))
        .where(items.c.notification_id == notification.id)
    )


def _select_shared(notification: AnyRow, now: datetime) -> Select[Any]:
    """Everyone of the tenant who was there: most have no row that names the broadcast."""
    is_sent = exists().where(
        device_cursors.c.user_id == users.c.id, device_cursors.c.sent_broadcast >= broadcasts.c.seq
    )
    is_acked = func.coalesce(streams.c.acked_broadcast, 0) >= broadcasts.c.seq
    status = _status(is_acked, is_sent, literal(value=False), broadcasts.c.expires_at, now)
    if notification.recalled_at is not None:
        status = literal(DeliveryState.RECALLED.value).label("status")
    own = and_(
        broadcast_states.c.user_id == users.c.id, broadcast_states.c.notification_id == broadcasts.c.notification_id
    )
    return (
        select(
            users.c.id.label("user_id"),
            status,
            broadcasts.c.created_at,
            broadcast_states.c.seen_at,
            broadcast_states.c.read_at,
            broadcast_states.c.archived_at,
            select_delivered_at(users.c.id, device_cursors.c.acked_broadcast >= broadcasts.c.seq),
        )
        .select_from(
            broadcasts.join(users, and_(users.c.tenant == broadcasts.c.tenant, users.c.is_active))
            .outerjoin(streams, streams.c.user_id == users.c.id)
            .outerjoin(broadcast_states, own)
        )
        .where(broadcasts.c.notification_id == notification.id, users.c.created_at <= broadcasts.c.created_at)
    )


def select_delivered_at(user_id: ColumnElement[Any], is_acked: ColumnElement[bool]) -> Label[Any]:
    """When a device had it at the latest: the last word of the first of the devices that acknowledged so far.

    What each single acknowledgement said is kept by nobody, so the moment can move while devices go on.
    """
    columns = device_cursors.c
    return (select(func.min(columns.updated_at)).where(columns.user_id == user_id, is_acked).scalar_subquery()).label(
        "delivered_at"
    )


def _status(
    is_acked: ColumnElement[bool],
    is_sent: ColumnElement[bool],
    is_queued: ColumnElement[bool],
    expires_at: ColumnElement[Any],
    now: datetime,
) -> Label[str]:
    return case(
        (is_acked, DeliveryState.ACKED.value),
        (and_(expires_at.is_not(None), expires_at <= now), DeliveryState.EXPIRED.value),
        (is_sent, DeliveryState.SENT.value),
        (is_queued, DeliveryState.QUEUED.value),
        else_=DeliveryState.PENDING.value,
    ).label("status")


def _describe(notification: AnyRow, row: AnyRow) -> dict[str, Any]:
    return {
        "id": _delivery_id(notification.id, str(row.user_id)),
        "notification_id": notification.id,
        "user_id": row.user_id,
        "channel": IN_APP,
        "status": row.status,
        "reason": _REASONS.get(row.status),
        "attempts": 0 if row.status == DeliveryState.PENDING else 1,
        "created_at": row.created_at,
        "last_attempt_at": notification.dispatched_at,
        "delivered_at": _find_delivered_at(row),
        "provider_message_id": None,
        "error": None,
        "seen_at": row.seen_at,
        "read_at": row.read_at,
        "archived_at": row.archived_at,
    }


def _find_delivered_at(row: AnyRow) -> datetime | None:
    if row.status != DeliveryState.ACKED:
        return None
    return min((at for at in (row.delivered_at, row.seen_at, row.read_at) if at is not None), default=None)


def _describe_problems(notification: AnyRow) -> list[dict[str, Any]]:
    problems: Sequence[dict[str, str]] = notification.problems or ()
    return [_describe_problem(notification, problem["recipient"], problem["reason"]) for problem in problems]


def _describe_problem(notification: AnyRow, recipient: str, reason: str) -> dict[str, Any]:
    error = _PROBLEMS.get(reason, "the text could not be made; a dead letter says why")
    return {
        "id": _delivery_id(notification.id, recipient),
        "notification_id": notification.id,
        "user_id": _find_user_id(recipient) if reason != Reason.UNKNOWN_RECIPIENT else None,
        "recipient": recipient,
        "channel": IN_APP,
        "status": DeliveryState.FAILED,
        "reason": reason,
        "attempts": 0,
        "created_at": notification.created_at,
        "last_attempt_at": None,
        "delivered_at": None,
        "provider_message_id": None,
        "error": f"{error} at {format_time(notification.created_at)}" if reason in _PROBLEMS else error,
    }


def _find_user_id(recipient: str) -> UUID | None:
    """Who is meant; None for `ext:...` and groups."""
    try:
        return UUID(recipient)
    except ValueError:
        return None


def _delivery_id(notification_id: UUID, recipient: str) -> UUID:
    # Not stored, but always the same for the same delivery.
    return uuid.uuid5(notification_id, f"{IN_APP}:{recipient}")
