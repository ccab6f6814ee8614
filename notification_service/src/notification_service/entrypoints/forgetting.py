"""What is older than is kept goes, table by table and a bounded number of rows at a time.

A notification goes when nobody has it in an inbox any more: items and broadcasts have their own time, and pinned items
stay. Keys of callers go after a week; an id is known for as long as its notification is there.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import delete, exists, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.channels.models import deliveries, delivery_attempts
from notification_service.digests.models import digest_items, digests
from notification_service.intake.models import idempotency_keys
from notification_service.mailbox.models import broadcasts, items
from notification_service.notifications.models import (
    decision_records,
    decision_users,
    notification_contents,
    notifications,
)
from notification_service.notifications.repository import find_tenants

KEYS_KEPT: Final = timedelta(days=7)


async def forget_old_rows(connection: AsyncConnection, *, now: datetime, retention: timedelta, limit: int) -> int:
    """Delete rows beyond their time; answers the largest number that one table lost, `limit` at most.

    Args:
        connection: In a write transaction.
        retention: How long notifications and deliveries are kept.
    """
    before = now - retention
    counts = [await _forget_keys(connection, now - KEYS_KEPT, limit), await _forget_digests(connection, before, limit)]
    for tenant in await find_tenants(connection):
        counts.append(await _forget_notifications(connection, tenant, before, limit))
        counts.append(await _forget_deliveries(connection, tenant, before, limit))
    return max(counts)


async def _forget_notifications(connection: AsyncConnection, tenant: str, before: datetime, limit: int) -> int:
    columns = notifications.c
    log = broadcasts.c
    gone = select(columns.id).where(
        columns.tenant == tenant,
        columns.created_at < before,
        columns.dispatched_at.is_not(None),
        ~exists().where(items.c.notification_id == columns.id),
        ~exists().where(log.notification_id == columns.id, log.removed_at.is_(None)),
        ~exists().where(digest_items.c.notification_id == columns.id),
    )
    ids = list((await connection.execute(gone.order_by(columns.created_at).limit(limit))).scalars())
    if ids:
        for table in (decision_users, decision_records, notification_contents):
            await connection.execute(delete(table).where(table.c.notification_id.in_(ids)))
        await connection.execute(delete(notifications).where(columns.id.in_(ids)))
    return len(ids)


async def _forget_deliveries(connection: AsyncConnection, tenant: str, before: datetime, limit: int) -> int:
    columns = deliveries.c
    # One that has a time to be tried again has not ended.
    gone = select(columns.user_id, columns.id).where(
        columns.tenant == tenant, columns.created_at < before, columns.next_attempt_at.is_(None)
    )
    rows = (await connection.execute(gone.order_by(columns.created_at).limit(limit))).all()
    if rows:
        ids = [row.id for row in rows]
        await connection.execute(delete(delivery_attempts).where(delivery_attempts.c.delivery_id.in_(ids)))
        await connection.execute(delete(deliveries).where(columns.id.in_(ids)))
    return len(rows)


async def _forget_digests(connection: AsyncConnection, before: datetime, limit: int) -> int:
    columns = digests.c
    ids = list(
        (
            await connection.execute(
                select(columns.id).where(columns.closed_at.is_not(None), columns.closed_at < before).limit(limit)
            )
        ).scalars()
    )
    if ids:
        await connection.execute(delete(digest_items).where(digest_items.c.digest_id.in_(ids)))
        await connection.execute(delete(digests).where(columns.id.in_(ids)))
    return len(ids)


async def _forget_keys(connection: AsyncConnection, before: datetime, limit: int) -> int:
    columns = idempotency_keys.c
    gone = select(columns.caller_id, columns.key).where(columns.created_at < before).limit(limit)
    key = tuple_(columns.caller_id, columns.key)
    return (await connection.execute(delete(idempotency_keys).where(key.in_(gone)))).rowcount
