"""Reading back what was kept, for the relay: the same values `keep_items` answered, with the counts of now."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.mailbox.changes import read_texts
from notification_service.mailbox.counting import COUNT_COLUMNS, add_broadcasts
from notification_service.mailbox.live_broadcasts import LiveBroadcasts
from notification_service.mailbox.models import broadcasts, items, streams
from notification_service.notifications.entity import Notification
from notification_service.notifications.kept import KeptBroadcast, KeptItem

_CHUNK: Final = 2_000
"""Items read at once; a notification to a large group is dispatched in pieces, so memory stays bounded."""


async def load_kept_items(
    connection: AsyncConnection, notification: Notification, *, live: LiveBroadcasts, now: datetime
) -> AsyncIterator[list[KeptItem]]:
    """Items of one notification whose users have a queue, in chunks."""
    lists = await live.load(connection, {notification.tenant})
    after = UUID(int=0)
    while True:
        rows = (
            await connection.execute(
                select(
                    items.c.user_id,
                    items.c.seq,
                    items.c.variant,
                    streams.c.queue_declared,
                    streams.c.queue_generation,
                    *COUNT_COLUMNS,
                )
                .join(streams, streams.c.user_id == items.c.user_id)
                .where(
                    items.c.notification_id == notification.id, items.c.user_id > after, items.c.deleted_at.is_(None)
                )
                .order_by(items.c.user_id)
                .limit(_CHUNK)
            )
        ).all()
        if not rows:
            return
        after = rows[-1].user_id
        variants = {(notification.id, row.variant) for row in rows if row.variant is not None}
        texts = await read_texts(connection, variants) if variants else {}
        yield [
            KeptItem(
                row.user_id,
                row.seq,
                _as_read(notification, row.variant, texts),
                add_broadcasts(row, row.broadcast_floor or 0, lists[notification.tenant], now),
                row.queue_declared,
                row.queue_generation,
            )
            for row in rows
            if row.queue_declared
        ]


def _as_read(
    notification: Notification,
    variant: str | None,
    texts: Mapping[tuple[UUID, str], tuple[str | None, str | None]],
) -> Notification:
    text = texts.get((notification.id, variant)) if variant is not None else None
    return replace(notification, variant=variant, title=text[0], body=text[1]) if text else notification


async def load_kept_broadcasts(
    connection: AsyncConnection, notifications: Sequence[Notification]
) -> list[KeptBroadcast]:
    """Log entries of these notifications, in order."""
    by_id = {each.id: each for each in notifications}
    rows = await connection.execute(
        select(broadcasts.c.seq, broadcasts.c.notification_id)
        .where(broadcasts.c.notification_id.in_(by_id), broadcasts.c.removed_at.is_(None))
        .order_by(broadcasts.c.tenant, broadcasts.c.seq)
    )
    return [KeptBroadcast(row.seq, by_id[row.notification_id]) for row in rows]
