"""Putting notifications into mailboxes and into the broadcast log: numbers first, in one statement, then the rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import FromClause, Integer, String, Uuid, insert, literal_column, select, true
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.db.base import AnyRow, BigNumber, UtcDateTime
from notification_service.db.dialects import dialect_insert, insert_into
from notification_service.db.rows import RowsStatement, RowTypes, make_rows
from notification_service.mailbox.counting import COUNT_COLUMNS, add_broadcasts, find_floors
from notification_service.mailbox.live_broadcasts import LiveBroadcasts
from notification_service.mailbox.models import broadcast_streams, broadcasts, items, streams
from notification_service.notifications.entity import Notification
from notification_service.notifications.kept import Counts, KeptBroadcast, KeptItem

_ITEM_TYPES = {
    "user_id": Uuid(),
    "seq": BigNumber,
    "notification_id": Uuid(),
    "created_at": UtcDateTime(),
    "expires_at": UtcDateTime(),
    "variant": String(),
}

_INSERT_ITEMS = RowsStatement(
    _ITEM_TYPES,
    lambda _, rows: insert(items).from_select([*_ITEM_TYPES, "changed_seq"], select(*rows.c, rows.c.seq)),
)

Addressed = tuple[Notification, Sequence[UUID]]
Numbered = tuple[UUID, int, Notification]


async def keep_items(
    connection: AsyncConnection, addressed: Sequence[Addressed], *, live: LiveBroadcasts, now: datetime
) -> list[KeptItem]:
    """Store one item per notification and user; answer them in the order given.

    A fixed number of statements, however many users. The rows of all users are locked until commit, so whoever reads a
    user's top number afterwards reads these items too.

    Args:
        connection: In a write transaction.
        addressed: Notifications, none of which was kept before, each with users that appear once.
        live: This process's memory of the live broadcasts.
        now: For the counts.
    """
    wanted = Counter(user_id for _, user_ids in addressed for user_id in user_ids)
    if not wanted:
        return []
    tenants = {user_id: each.tenant for each, user_ids in addressed for user_id in user_ids}
    rows = await _raise_tops(connection, wanted, tenants)
    next_seq = {user_id: row.top_seq - wanted[user_id] for user_id, row in rows.items()}
    numbered: list[Numbered] = []
    for notification, user_ids in addressed:
        for user_id in user_ids:
            next_seq[user_id] = seq = next_seq[user_id] + 1
            numbered.append((user_id, seq, notification))
    kept = await describe_kept(connection, numbered, rows, live=live, now=now)
    records = [
        (
            each.user_id,
            each.seq,
            each.notification.id,
            each.notification.created_at,
            each.notification.expires_at,
            each.notification.variant,
        )
        for each in kept
    ]
    await _INSERT_ITEMS.execute(connection, records)
    return kept


async def describe_kept(
    connection: AsyncConnection,
    numbered: Sequence[Numbered],
    rows: Mapping[UUID, AnyRow],
    *,
    live: LiveBroadcasts,
    now: datetime,
) -> list[KeptItem]:
    """What is published of items that have their numbers, in the order given.

    Args:
        connection: Reads what this process does not remember of broadcasts.
        numbered: User, number, notification.
        rows: What `build_raise_tops` returned, by user.
        live: This process's memory of the live broadcasts.
        now: For the counts.
    """
    tenants = {user_id: notification.tenant for user_id, _, notification in numbered}
    bases = await _count_bases(connection, rows, tenants, live=live, now=now)
    kept = []
    for user_id, seq, notification in numbered:
        row, after = rows[user_id], bases[user_id]
        later = row.top_seq - seq
        counts = Counts(after.unread - later, after.unseen - later, after.total - later)
        kept.append(KeptItem(user_id, seq, notification, counts, row.queue_declared, row.queue_generation))
    return kept


_TOP_TYPES: RowTypes = {"user_id": Uuid(), "tenant": String(), "number": Integer()}
_RAISED = ("top_seq", "unread", "unseen", "total")


def build_raise_tops(dialect_name: str, rows: FromClause) -> Any:
    """An upsert that takes the next numbers of users' streams and counts the items in.

    Its rows stay locked until the transaction ends. In order: two workers lock users in the same order and never wait
    for each other in a circle.

    Args:
        dialect_name: Of the database.
        rows: `user_id`, `tenant`, and `number`: how many items.
    """
    source = select(rows.c.user_id, rows.c.tenant, *(rows.c.number.label(name) for name in _RAISED)).where(true())
    source = source.order_by(rows.c.user_id)
    insertion = dialect_insert(dialect_name, streams).from_select(["user_id", "tenant", *_RAISED], source)
    new = insertion.excluded
    return insertion.on_conflict_do_update(
        index_elements=[streams.c.user_id],
        set_={name: streams.c[name] + new[name] for name in _RAISED},
    ).returning(
        streams.c.user_id,
        streams.c.top_seq,
        streams.c.queue_declared,
        streams.c.queue_generation,
        *COUNT_COLUMNS,
        # With the numbers, so that the counts need no query of their own. The row written is named as text: SQLAlchemy
        # neither correlates within RETURNING nor, for SQLite, keeps the table in a column's name there.
        select(broadcast_streams.c.version)
        .where(broadcast_streams.c.tenant == literal_column(f"{streams.name}.tenant", String()))
        .scalar_subquery()
        .label("broadcast_version"),
    )


_RAISE_TOPS = RowsStatement(_TOP_TYPES, build_raise_tops)


async def _raise_tops(
    connection: AsyncConnection, wanted: Counter[UUID], tenants: dict[UUID, str]
) -> dict[UUID, AnyRow]:
    records = [(user_id, tenants[user_id], count) for user_id, count in wanted.items()]
    return {row.user_id: row for row in await _RAISE_TOPS.execute(connection, records)}


async def _count_bases(
    connection: AsyncConnection,
    rows: Mapping[UUID, AnyRow],
    tenants: Mapping[UUID, str],
    *,
    live: LiveBroadcasts,
    now: datetime,
) -> dict[UUID, Counts]:
    lists = await live.load_at(connection, {tenants[user_id]: row.broadcast_version for user_id, row in rows.items()})
    new = [user_id for user_id, row in rows.items() if row.broadcast_floor is None]
    floors = await find_floors(connection, new) if new else {}
    return {
        user_id: add_broadcasts(row, floors.get(user_id, row.broadcast_floor), lists[tenants[user_id]], now)
        for user_id, row in rows.items()
    }


async def keep_broadcasts(connection: AsyncConnection, notifications: Sequence[Notification]) -> list[KeptBroadcast]:
    """Add broadcasts to their tenants' logs; answer them in the order given."""
    if not notifications:
        return []
    wanted = Counter(each.tenant for each in notifications)
    records = [(tenant, count, 1) for tenant, count in sorted(wanted.items())]
    source = make_rows(connection, {"tenant": String(), "top_seq": BigNumber, "version": BigNumber}, records)
    insertion = insert_into(connection, broadcast_streams).from_select(
        ["tenant", "top_seq", "version"], select(*source.c).where(true())
    )
    statement = insertion.on_conflict_do_update(
        index_elements=[broadcast_streams.c.tenant],
        set_={name: broadcast_streams.c[name] + insertion.excluded[name] for name in ("top_seq", "version")},
    ).returning(broadcast_streams.c.tenant, broadcast_streams.c.top_seq)
    tops = {row.tenant: row.top_seq for row in await connection.execute(statement)}
    next_seq = {tenant: top - wanted[tenant] for tenant, top in tops.items()}
    kept = []
    for each in notifications:
        next_seq[each.tenant] += 1
        kept.append(KeptBroadcast(next_seq[each.tenant], each))
    await connection.execute(
        insert(broadcasts),
        [
            {
                "tenant": each.notification.tenant,
                "seq": each.seq,
                "notification_id": each.notification.id,
                "created_at": each.notification.created_at,
                "expires_at": each.notification.expires_at,
            }
            for each in kept
        ],
    )
    return kept
