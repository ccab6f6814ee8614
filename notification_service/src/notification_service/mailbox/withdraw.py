"""Changes that are not the user's own: items recalled, replaced, expired or rewritten.

Each takes a number in its user's stream, so that every device learns of it, also one that was away. A fixed number of
statements, however many users.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import orjson
from sqlalchemy import Integer, String, Uuid, and_, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.db.base import AnyRow, BigNumber
from notification_service.db.rows import RowTypes, make_rows
from notification_service.mailbox.actions import ItemFlags
from notification_service.mailbox.counting import COUNT_COLUMNS, add_broadcasts
from notification_service.mailbox.live_broadcasts import LiveBroadcasts
from notification_service.mailbox.models import broadcast_streams, broadcasts, items, streams
from notification_service.mailbox.state import forget_broadcasts
from notification_service.notifications.entity import Notification
from notification_service.notifications.frames import encode_unknown, encode_updated, encode_withdrawn
from notification_service.notifications.kept import Counts
from notification_service.notifications.models import notifications
from notification_service.notifications.pages import UPDATED_LABEL, FrameType, StreamFrame
from shared_contracts.ids import new_id

_FLAGS: Final = ("read_at", "seen_at", "archived_at", "snoozed_until", "deleted_at", "pinned_at")
MAX_AT_ONCE: Final = 1_000

Target = tuple[UUID, UUID]
"""A user and a notification."""


@dataclass(frozen=True, slots=True)
class LogFrame:
    """One entry of a tenant's broadcast log that tells of another one, to be published to every node."""

    tenant: str
    seq: int
    type: FrameType
    body: bytes


async def mark_items(
    connection: AsyncConnection,
    targets: Collection[Target],
    label: str,
    *,
    live: LiveBroadcasts,
    now: datetime,
    content: dict[str, Any] | None = None,
) -> list[StreamFrame]:
    """Mark items; what is not there, or was removed, is passed over.

    Args:
        connection: In a write transaction. The users' streams are locked until it ends.
        targets: At most `MAX_AT_ONCE`.
        label: `updated`, or a word of withdrawal: the item is removed then.
        content: What clients see of an updated notification.
    """
    if not targets:
        return []
    rows = await _lock(connection, {user_id for user_id, _ in targets})
    found = await _find_items(connection, [target for target in targets if target[0] in rows])
    if not found:
        return []
    removes = label != UPDATED_LABEL
    numbers: Counter[UUID] = Counter()
    losses: dict[UUID, tuple[int, int, int]] = {}
    changes: list[tuple[UUID, int, int, UUID]] = []
    for row in found:
        numbers[row.user_id] += 1
        changes.append((row.user_id, row.seq, rows[row.user_id].top_seq + numbers[row.user_id], row.notification_id))
        if removes:
            counts = ItemFlags(*(row._mapping[name] for name in _FLAGS)).counts  # noqa: SLF001 - SQLAlchemy's name
            before = losses.get(row.user_id, (0, 0, 0))
            losses[row.user_id] = (before[0] + counts[0], before[1] + counts[1], before[2] + counts[2])
    await _write(connection, changes, numbers, losses, label, deleted_at=now if removes else None)
    lists = await live.load(connection, {row.tenant for row in rows.values()})
    encoded = orjson.dumps(content) if content else None
    frames = []
    for user_id, _, number, notification_id in changes:
        row, lost = rows[user_id], losses.get(user_id, (0, 0, 0))
        base = add_broadcasts(row, row.broadcast_floor or 0, lists[row.tenant], now)
        after = Counts(base.unread - lost[0], base.unseen - lost[1], base.total - lost[2])
        if removes:
            body = encode_withdrawn(notification_id, seq=number, counts=after, reason=label)
        else:
            body = encode_updated(encoded or encode_unknown(notification_id), seq=number, counts=after)
        type_ = FrameType.RECALLED if removes else FrameType.UPDATED
        frames.append(StreamFrame(user_id, number, type_, body, row.queue_declared, row.queue_generation))
    return frames


async def _lock(connection: AsyncConnection, user_ids: Collection[UUID]) -> dict[UUID, AnyRow]:
    # In the order of the ids, as everybody locks them.
    wanted = make_rows(connection, {"id": Uuid()}, [(each,) for each in sorted(user_ids)], "wanted")
    columns = streams.c
    query = (
        select(
            columns.user_id,
            columns.tenant,
            columns.top_seq,
            columns.queue_declared,
            columns.queue_generation,
            *COUNT_COLUMNS,
        )
        .join(wanted, columns.user_id == wanted.c.id)
        .order_by(columns.user_id)
        .with_for_update(of=streams)
    )
    return {row.user_id: row for row in await connection.execute(query)}


async def _find_items(connection: AsyncConnection, targets: Sequence[Target]) -> list[AnyRow]:
    if not targets:
        return []
    wanted = make_rows(connection, {"user_id": Uuid(), "notification_id": Uuid()}, targets, "wanted")
    rows = await connection.execute(
        select(items.c.user_id, items.c.seq, items.c.notification_id, *(items.c[name] for name in _FLAGS))
        .join(
            wanted,
            and_(items.c.notification_id == wanted.c.notification_id, items.c.user_id == wanted.c.user_id),
        )
        .where(items.c.deleted_at.is_(None))
        .order_by(items.c.user_id, items.c.seq)
    )
    return list(rows.all())


async def _write(
    connection: AsyncConnection,
    changes: Sequence[tuple[UUID, int, int, UUID]],
    numbers: Counter[UUID],
    losses: dict[UUID, tuple[int, int, int]],
    label: str,
    *,
    deleted_at: datetime | None,
) -> None:
    tops = make_rows(
        connection,
        {"user_id": Uuid(), "number": Integer(), "unread": Integer(), "unseen": Integer(), "total": Integer()},
        [(user_id, number, *losses.get(user_id, (0, 0, 0))) for user_id, number in sorted(numbers.items())],
        "tops",
    )
    await connection.execute(
        update(streams)
        .where(streams.c.user_id == tops.c.user_id)
        .values(
            top_seq=streams.c.top_seq + tops.c.number,
            unread=streams.c.unread - tops.c.unread,
            unseen=streams.c.unseen - tops.c.unseen,
            total=streams.c.total - tops.c.total,
        )
    )
    marked = make_rows(
        connection,
        {"user_id": Uuid(), "seq": BigNumber, "number": BigNumber},
        [(user_id, seq, number) for user_id, seq, number, _ in changes],
        "marked",
    )
    values: dict[str, Any] = {"changed_seq": marked.c.number, "last_change": label}
    if deleted_at is not None:
        values["deleted_at"] = deleted_at
    await connection.execute(
        update(items).where(items.c.user_id == marked.c.user_id, items.c.seq == marked.c.seq).values(**values)
    )


async def find_replaced(
    connection: AsyncConnection, addressed: Sequence[tuple[Notification, Sequence[UUID]]]
) -> list[Target]:
    """Older items that these new ones replace, by their collapse key; one statement, whatever the number.

    Every notification of the tenant with the same key is looked at: a key names one thing ("order-1042"), not a kind.
    """
    wanted = [
        (user_id, each.id, each.tenant, each.collapse_key)
        for each, user_ids in addressed
        if each.collapse_key is not None
        for user_id in user_ids
    ]
    if not wanted:
        return []
    types: RowTypes = {"user_id": Uuid(), "new_id": Uuid(), "tenant": String(), "collapse_key": String()}
    asked = make_rows(connection, types, wanted, "asked")
    columns = notifications.c
    rows = await connection.execute(
        select(items.c.user_id, items.c.notification_id)
        .select_from(
            asked.join(
                notifications,
                and_(columns.tenant == asked.c.tenant, columns.collapse_key == asked.c.collapse_key),
            ).join(items, and_(items.c.notification_id == columns.id, items.c.user_id == asked.c.user_id))
        )
        .where(items.c.deleted_at.is_(None), columns.id != asked.c.new_id)
        .distinct()
    )
    return [(row.user_id, row.notification_id) for row in rows]


async def find_holders(
    connection: AsyncConnection, notification_id: UUID, *, after: UUID | None, limit: int = MAX_AT_ONCE
) -> list[UUID]:
    """Users who have an item of this notification, in the order of their ids."""
    query = (
        select(items.c.user_id)
        .where(items.c.notification_id == notification_id, items.c.deleted_at.is_(None))
        .order_by(items.c.user_id)
        .limit(limit)
    )
    if after is not None:
        query = query.where(items.c.user_id > after)
    return list((await connection.execute(query)).scalars())


async def find_expired(connection: AsyncConnection, *, now: datetime, limit: int = MAX_AT_ONCE) -> list[Target]:
    """Items whose time is over and that are still counted."""
    rows = await connection.execute(
        select(items.c.user_id, items.c.notification_id)
        .where(items.c.expires_at.is_not(None), items.c.deleted_at.is_(None), items.c.expires_at <= now)
        .order_by(items.c.expires_at)
        .limit(limit)
    )
    return [(row.user_id, row.notification_id) for row in rows]


# --- broadcasts -----------------------------------------------------------------------------------------------------


async def mark_broadcast(
    connection: AsyncConnection,
    notification_id: UUID,
    label: str,
    *,
    now: datetime,
    content: dict[str, Any] | None = None,
) -> LogFrame | None:
    """Tell everybody what became of a broadcast, by an entry of the log; None when it is not there any more.

    Args:
        connection: In a write transaction.
    """
    columns = broadcasts.c
    tenant = (
        await connection.execute(
            select(columns.tenant).where(columns.notification_id == notification_id, columns.removed_at.is_(None))
        )
    ).scalar_one_or_none()
    if tenant is None:
        return None
    top: int = (
        await connection.execute(
            update(broadcast_streams)
            .where(broadcast_streams.c.tenant == tenant)
            .values(top_seq=broadcast_streams.c.top_seq + 1, version=broadcast_streams.c.version + 1)
            .returning(broadcast_streams.c.top_seq)
        )
    ).scalar_one()
    removes = label != UPDATED_LABEL
    if removes:
        await _remove_broadcasts(connection, tenant, [notification_id], now)
    await connection.execute(
        insert(broadcasts).values(
            tenant=tenant,
            seq=top,
            notification_id=new_id(),
            created_at=now,
            removed_at=now,
            about=notification_id,
            label=label,
        )
    )
    if removes:
        body = encode_withdrawn(notification_id, seq=None, counts=None, reason=label)
        return LogFrame(tenant, top, FrameType.RECALLED, body)
    encoded = orjson.dumps(content) if content else encode_unknown(notification_id)
    body = encode_updated(encoded, seq=None, counts=None)
    return LogFrame(tenant, top, FrameType.UPDATED, body)


async def remove_expired_broadcasts(connection: AsyncConnection, *, now: datetime, older_than: timedelta) -> int:
    """Take broadcasts out of every inbox that expired, or are older than is kept; answers how many."""
    columns = broadcasts.c
    rows = await connection.execute(
        select(columns.tenant, columns.notification_id)
        .where(
            columns.removed_at.is_(None),
            ((columns.expires_at.is_not(None)) & (columns.expires_at <= now)) | (columns.created_at < now - older_than),
        )
        .limit(MAX_AT_ONCE)
    )
    by_tenant: dict[str, list[UUID]] = {}
    for row in rows:
        by_tenant.setdefault(row.tenant, []).append(row.notification_id)
    for tenant, ids in sorted(by_tenant.items()):
        await connection.execute(
            update(broadcast_streams)
            .where(broadcast_streams.c.tenant == tenant)
            .values(version=broadcast_streams.c.version + 1)
        )
        await _remove_broadcasts(connection, tenant, ids, now)
    return sum(map(len, by_tenant.values()))


async def _remove_broadcasts(connection: AsyncConnection, tenant: str, ids: Sequence[UUID], now: datetime) -> None:
    """Mark them as removed, and take what users did with them out of those users' counts of live broadcasts."""
    await connection.execute(
        update(broadcasts)
        .where(broadcasts.c.tenant == tenant, broadcasts.c.notification_id.in_(ids))
        .values(removed_at=now)
    )
    await forget_broadcasts(connection, ids)
