"""Schedules: requests that are sent once at a time, or again and again."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.db.base import AnyRow
from notification_service.digests.models import schedules
from notification_service.digests.recurrence import next_time
from notification_service.notifications.entity import Sender
from shared_contracts.ids import new_id


async def insert_schedule(
    connection: AsyncConnection,
    *,
    tenant: str,
    sender: Sender,
    request: dict[str, Any],
    recurrence: dict[str, Any] | None,
    next_at: datetime,
    now: datetime,
) -> AnyRow:
    """Store a schedule."""
    statement = (
        insert(schedules)
        .values(
            id=new_id(),
            tenant=tenant,
            sender_id=sender.id,
            sender_name=sender.name,
            request=request,
            recurrence=recurrence,
            next_at=next_at,
            fired_count=0,
            created_at=now,
        )
        .returning(*schedules.c)
    )
    return (await connection.execute(statement)).one()


async def list_schedules(
    connection: AsyncConnection, *, tenant: str, sender_id: UUID | None, after: UUID | None, limit: int
) -> list[AnyRow]:
    """A page of schedules; `sender_id` None: everybody's of the tenant."""
    query = select(schedules).where(schedules.c.tenant == tenant).order_by(schedules.c.id).limit(limit)
    if sender_id is not None:
        query = query.where(schedules.c.sender_id == sender_id)
    if after is not None:
        query = query.where(schedules.c.id > after)
    return list((await connection.execute(query)).all())


async def delete_schedule(
    connection: AsyncConnection, schedule_id: UUID, *, tenant: str, sender_id: UUID | None
) -> bool:
    """Delete a schedule; answers whether it was there, and the caller's."""
    conditions = [schedules.c.id == schedule_id, schedules.c.tenant == tenant]
    if sender_id is not None:
        conditions.append(schedules.c.sender_id == sender_id)
    return bool((await connection.execute(delete(schedules).where(*conditions))).rowcount)


async def has_due(connection: AsyncConnection, *, now: datetime) -> bool:
    """Whether any schedule is due."""
    found = await connection.execute(select(schedules.c.id).where(schedules.c.next_at <= now).limit(1))
    return found.first() is not None


async def claim_due(connection: AsyncConnection, *, now: datetime, limit: int) -> list[AnyRow]:
    """Schedules that are due, locked until the transaction ends; another scheduler passes them over."""
    rows = await connection.execute(
        select(schedules)
        .where(schedules.c.next_at <= now)
        .order_by(schedules.c.next_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return list(rows.all())


async def advance(connection: AsyncConnection, schedule: AnyRow, *, now: datetime) -> None:
    """Note that it fired. What was missed while no scheduler ran is sent once, not once per missed time."""
    following = next_time(schedule.recurrence, max(now, schedule.next_at)) if schedule.recurrence else None
    await connection.execute(
        update(schedules)
        .where(schedules.c.id == schedule.id)
        .values(next_at=following, fired_count=schedules.c.fired_count + 1)
    )


def firing_id(schedule: AnyRow) -> UUID:
    """The id of the notification of one firing: the same, whoever fires it."""
    return uuid.uuid5(schedule.id, schedule.next_at.isoformat())
