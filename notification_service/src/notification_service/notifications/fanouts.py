"""Audiences too large for one transaction: served in pieces, senders taking turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, delete, func, insert, literal_column, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.notifications.entity import Notification
from notification_service.notifications.models import fanouts


@dataclass(frozen=True, slots=True)
class Fanout:
    """How far one notification has come; `after` None: it is at the beginning."""

    notification_id: UUID
    after: UUID | None


async def begin_fanouts(connection: AsyncConnection, notifications: Sequence[Notification], now: datetime) -> None:
    """Note notifications whose audiences are to be served in pieces."""
    if notifications:
        await connection.execute(
            insert(fanouts),
            [
                {
                    "notification_id": each.id,
                    "sender_key": f"{each.tenant}/{each.sender.id or each.sender.name or ''}"[:320],
                    "after_user_id": None,
                    "served_at": now,
                }
                for each in notifications
            ],
        )


async def claim_next(connection: AsyncConnection) -> Fanout | None:
    """Whose turn it is, locked until the transaction ends.

    The tenant that was served longest ago; of its senders, the one served longest ago; there the oldest.
    """
    columns = fanouts.c
    tenant = _tenant_of(connection, columns.sender_key)
    senders = select(columns.sender_key, func.max(columns.served_at).label("at")).group_by(columns.sender_key)
    tenants = select(tenant.label("tenant"), func.max(columns.served_at).label("at")).group_by(tenant)
    of_sender, of_tenant = senders.subquery(), tenants.subquery()
    row = (
        await connection.execute(
            select(columns.notification_id, columns.after_user_id)
            .join(of_sender, of_sender.c.sender_key == columns.sender_key)
            .join(of_tenant, of_tenant.c.tenant == tenant)
            .order_by(of_tenant.c["at"], of_sender.c["at"], columns.served_at, columns.notification_id)
            .limit(1)
            .with_for_update(skip_locked=True, of=fanouts)
        )
    ).first()
    return Fanout(row.notification_id, row.after_user_id) if row is not None else None


def _tenant_of(connection: AsyncConnection, sender_key: ColumnElement[str]) -> ColumnElement[str]:
    # A tenant's name has no slash.
    slash: ColumnElement[str] = literal_column("'/'")
    if connection.dialect.name == "sqlite":
        return func.substr(sender_key, 1, func.instr(sender_key, slash) - literal_column("1"))
    return func.split_part(sender_key, slash, literal_column("1"))


async def advance(connection: AsyncConnection, notification_id: UUID, *, after: UUID, now: datetime) -> None:
    """Everybody up to this id is served."""
    await connection.execute(
        update(fanouts).where(fanouts.c.notification_id == notification_id).values(after_user_id=after, served_at=now)
    )


async def finish(connection: AsyncConnection, notification_id: UUID) -> None:
    """Everybody is served, or nobody else shall be."""
    await connection.execute(delete(fanouts).where(fanouts.c.notification_id == notification_id))
