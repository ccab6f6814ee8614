"""Who waits for a device's acknowledgement before the next channel is tried."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import Integer, Uuid, delete, select, true, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.db.base import AnyRow, UtcDateTime
from notification_service.db.dialects import insert_into
from notification_service.db.rows import RowTypes, make_rows
from notification_service.digests.models import escalations

_TYPES: RowTypes = {"notification_id": Uuid(), "user_id": Uuid(), "step": Integer(), "due_at": UtcDateTime()}

Waiting = tuple[UUID, UUID, int, datetime]
"""Notification, user, the step that comes next, and when."""


async def begin_escalations(connection: AsyncConnection, waiting: Sequence[Waiting]) -> None:
    """Note who waits; one statement."""
    if not waiting:
        return
    rows = make_rows(connection, _TYPES, list(waiting))
    await connection.execute(
        insert_into(connection, escalations)
        .from_select(list(_TYPES), select(*rows.c).where(true()))
        .on_conflict_do_nothing()
    )


async def has_due(connection: AsyncConnection, *, now: datetime) -> bool:
    """Whether any step is due."""
    found = await connection.execute(select(escalations.c.user_id).where(escalations.c.due_at <= now).limit(1))
    return found.first() is not None


async def claim_due(connection: AsyncConnection, *, now: datetime, limit: int) -> list[AnyRow]:
    """Steps whose time has come, locked until the transaction ends; another scheduler passes them over."""
    rows = await connection.execute(
        select(escalations)
        .where(escalations.c.due_at <= now)
        .order_by(escalations.c.due_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return list(rows.all())


async def finish_steps(
    connection: AsyncConnection, done: Sequence[tuple[UUID, UUID]], following: Sequence[Waiting]
) -> None:
    """Delete steps that were taken or need not be, and note the ones that follow."""
    if done:
        kinds: RowTypes = {"notification_id": Uuid(), "user_id": Uuid()}
        rows = make_rows(connection, kinds, list(done), "done")
        named = select(rows.c.notification_id, rows.c.user_id)
        key = tuple_(escalations.c.notification_id, escalations.c.user_id)
        await connection.execute(delete(escalations).where(key.in_(named)))
    await begin_escalations(connection, following)


async def stop_escalations(connection: AsyncConnection, notification_id: UUID) -> None:
    """A recalled notification escalates no further."""
    await connection.execute(delete(escalations).where(escalations.c.notification_id == notification_id))
