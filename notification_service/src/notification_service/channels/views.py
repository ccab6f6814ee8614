"""Deliveries over outgoing channels as the REST API shows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.channels.models import deliveries, delivery_attempts
from notification_service.db.base import AnyRow

COLUMNS: Final = (
    deliveries.c.id,
    deliveries.c.notification_id,
    deliveries.c.user_id,
    deliveries.c.channel,
    deliveries.c.status,
    deliveries.c.reason,
    (deliveries.c.attempts + deliveries.c.earlier_attempts).label("attempts"),
    deliveries.c.created_at,
    deliveries.c.last_attempt_at,
    deliveries.c.not_before,
    deliveries.c.sent_at,
    deliveries.c.delivered_at,
    deliveries.c.provider_message_id,
    deliveries.c.error,
)


def describe(row: AnyRow) -> dict[str, Any]:
    """One row of `COLUMNS`."""
    return dict(row._mapping)  # noqa: SLF001 - public, despite its name


class ChannelDeliveries:
    """`mailbox.status_endpoints.OtherDeliveries`: what the status of a notification shows beside its in-app ones."""

    async def count(self, connection: AsyncConnection, notification_id: UUID) -> dict[str, dict[str, int]]:
        """How many deliveries are in which state, by channel."""
        columns = deliveries.c
        rows = await connection.execute(
            select(columns.channel, columns.status, func.count().label("number"))
            .where(columns.notification_id == notification_id)
            .group_by(columns.channel, columns.status)
            .order_by(columns.channel, columns.status)
        )
        counts: dict[str, dict[str, int]] = {}
        for row in rows:
            counts.setdefault(row.channel, {})[row.status] = row.number
        return counts

    async def list(
        self, connection: AsyncConnection, notification_id: UUID, *, after: tuple[UUID, UUID] | None, limit: int
    ) -> list[dict[str, Any]]:
        """In the order of (user, id)."""
        columns = deliveries.c
        query = select(*COLUMNS).where(columns.notification_id == notification_id)
        if after is not None:
            query = query.where(tuple_(columns.user_id, columns.id) > tuple_(*after))
        rows = await connection.execute(query.order_by(columns.user_id, columns.id).limit(limit))
        return [describe(row) for row in rows]


async def list_attempts(connection: AsyncConnection, delivery_ids: Sequence[UUID]) -> dict[UUID, list[dict[str, Any]]]:
    """The history of deliveries, oldest first."""
    columns = delivery_attempts.c
    found: dict[UUID, list[dict[str, Any]]] = {}
    if not delivery_ids:
        return found
    rows = await connection.execute(
        select(delivery_attempts)
        .where(columns.delivery_id.in_(delivery_ids))
        .order_by(columns.delivery_id, columns.number, columns.started_at)
    )
    for row in rows:
        found.setdefault(row.delivery_id, []).append(
            {
                "number": row.number,
                "route": row.route,
                "started_at": row.started_at,
                "latency_ms": row.latency_ms,
                "outcome": row.outcome,
                "reason": row.reason,
                "detail": row.detail,
                "provider_message_id": row.provider_message_id,
            }
        )
    return found
