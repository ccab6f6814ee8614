"""What others ask of the mailbox when time has passed: what was answered, what comes back, what is too old."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import Integer, Uuid, and_, case, delete, func, or_, select, union_all, update
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.db.base import AnyRow, BigNumber
from notification_service.db.rows import RowTypes, make_rows
from notification_service.mailbox.changes import read_texts
from notification_service.mailbox.models import broadcast_states, device_cursors, items, stream_marks, streams
from notification_service.notifications.models import notifications

Pair = tuple[UUID, UUID]
"""A user and a notification."""

_PAIR: Final[RowTypes] = {"user_id": Uuid(), "notification_id": Uuid()}


@dataclass(frozen=True, slots=True)
class Snoozed:
    """Items of one user whose rest is over."""

    user_id: UUID
    tenant: str
    notification_ids: list[UUID]


async def find_answered(connection: AsyncConnection, pairs: Sequence[Pair], *, acked_counts: bool) -> set[Pair]:
    """Those of these items that need no further word: seen, read, put away, or removed.

    Args:
        acked_counts: Whether a device's acknowledgement is an answer, too.
    """
    if not pairs:
        return set()
    rows = make_rows(connection, _PAIR, list(pairs), "asked")
    columns = items.c
    answers = [
        columns.read_at.is_not(None),
        columns.archived_at.is_not(None),
        columns.deleted_at.is_not(None),
        *((columns.seen_at.is_not(None), streams.c.acked_seq >= columns.seq) if acked_counts else ()),
    ]
    found = await connection.execute(
        select(columns.user_id, columns.notification_id)
        .join(rows, and_(columns.notification_id == rows.c.notification_id, columns.user_id == rows.c.user_id))
        .join(streams, streams.c.user_id == columns.user_id)
        .where(or_(*answers))
    )
    return {(row.user_id, row.notification_id) for row in found}


async def find_titles(connection: AsyncConnection, pairs: Sequence[Pair]) -> dict[Pair, tuple[str | None, str | None]]:
    """Title and body of these items as their users read them; only where they differ from the notification's own."""
    if not pairs:
        return {}
    rows = make_rows(connection, _PAIR, list(pairs), "asked")
    columns = items.c
    found = (
        await connection.execute(
            select(columns.user_id, columns.notification_id, columns.variant)
            .join(rows, and_(columns.notification_id == rows.c.notification_id, columns.user_id == rows.c.user_id))
            .where(columns.variant.is_not(None))
        )
    ).all()
    if not found:
        return {}
    texts = await read_texts(connection, {(row.notification_id, row.variant) for row in found})
    return {
        (row.user_id, row.notification_id): texts[row.notification_id, row.variant]
        for row in found
        if (row.notification_id, row.variant) in texts
    }


async def list_unread(connection: AsyncConnection, user_id: UUID, *, since: datetime, limit: int) -> list[AnyRow]:
    """A user's unread items of a time, the newest first: their notification, title and body."""
    columns = items.c
    rows = await connection.execute(
        select(columns.notification_id, notifications.c.title, notifications.c.body, columns.created_at)
        .join(notifications, notifications.c.id == columns.notification_id)
        .where(
            columns.user_id == user_id,
            columns.created_at >= since,
            columns.read_at.is_(None),
            columns.archived_at.is_(None),
            columns.deleted_at.is_(None),
            columns.snoozed_until.is_(None),
            # A summary does not tell of summaries.
            notifications.c.category.is_(None) | (notifications.c.category != "digests"),
        )
        .order_by(columns.seq.desc())
        .limit(limit)
    )
    return list(rows.all())


async def find_due_snoozes(connection: AsyncConnection, *, now: datetime, limit: int) -> list[Snoozed]:
    """Items and broadcasts whose rest is over, by user."""
    parts = [
        select(table.c.user_id, table.c.notification_id)
        .where(table.c.snoozed_until.is_not(None), table.c.snoozed_until <= now, table.c.deleted_at.is_(None))
        .order_by(table.c.snoozed_until)
        .limit(limit)
        .subquery()
        for table in (items, broadcast_states)
    ]
    due = union_all(*(select(part) for part in parts)).subquery()
    rows = await connection.execute(
        select(due.c.user_id, due.c.notification_id, streams.c.tenant).join(streams, streams.c.user_id == due.c.user_id)
    )
    found: dict[UUID, Snoozed] = {}
    for row in rows:
        of_user = found.setdefault(row.user_id, Snoozed(row.user_id, row.tenant, []))
        of_user.notification_ids.append(row.notification_id)
    return list(found.values())


async def forget_old_items(
    connection: AsyncConnection, *, before: datetime, after_user: UUID | None, limit: int
) -> tuple[int, UUID | None]:
    """Delete items that are older than is kept, for the next users in the order of their ids.

    Positions before what was deleted are not valid any more: the stream's floor rises, and a device that has not come
    this far gets a reset. A device that said nothing for as long is forgotten with the items it knew: should it come
    back, it is a new one. Every login makes one, for clients that do not name theirs.

    Args:
        connection: In a write transaction.

    Returns:
        How many items were deleted, and the last user looked at; None: there are no more.
    """
    query = select(streams.c.user_id).order_by(streams.c.user_id).limit(limit).with_for_update()
    if after_user is not None:
        query = query.where(streams.c.user_id > after_user)
    users = list((await connection.execute(query)).scalars())
    if not users:
        return 0, None
    wanted = make_rows(connection, {"id": Uuid()}, [(each,) for each in users], "wanted")
    columns = items.c
    counts_as = and_(columns.deleted_at.is_(None), columns.archived_at.is_(None), columns.snoozed_until.is_(None))
    rows = (
        await connection.execute(
            select(
                columns.user_id,
                func.max(columns.seq).label("last"),
                func.count().label("number"),
                func.sum(case((and_(counts_as, columns.read_at.is_(None)), 1), else_=0)).label("unread"),
                func.sum(case((and_(counts_as, columns.seen_at.is_(None)), 1), else_=0)).label("unseen"),
                func.sum(case((counts_as, 1), else_=0)).label("total"),
            )
            .join(wanted, wanted.c.id == columns.user_id)
            .where(columns.created_at < before, columns.pinned_at.is_(None))
            .group_by(columns.user_id)
        )
    ).all()
    if rows:
        await _forget(connection, rows, before)
    await _forget_devices(connection, users, before)
    return sum(row.number for row in rows), users[-1]


async def _forget(connection: AsyncConnection, rows: Collection[AnyRow], before: datetime) -> None:
    types: RowTypes = {
        "user_id": Uuid(),
        "last": BigNumber,
        "unread": Integer(),
        "unseen": Integer(),
        "total": Integer(),
    }
    records = [(row.user_id, row.last, row.unread, row.unseen, row.total) for row in rows]
    gone = make_rows(connection, types, records, "gone")
    await connection.execute(
        update(streams)
        .where(streams.c.user_id == gone.c.user_id)
        .values(
            floor_seq=case((gone.c.last > streams.c.floor_seq, gone.c.last), else_=streams.c.floor_seq),
            unread=streams.c.unread - gone.c.unread,
            unseen=streams.c.unseen - gone.c.unseen,
            total=streams.c.total - gone.c.total,
        )
    )
    ids = [row.user_id for row in rows]
    await connection.execute(
        delete(items).where(items.c.user_id.in_(ids), items.c.created_at < before, items.c.pinned_at.is_(None))
    )
    await connection.execute(delete(stream_marks).where(stream_marks.c.user_id.in_(ids), stream_marks.c.at < before))


async def _forget_devices(connection: AsyncConnection, user_ids: Collection[UUID], before: datetime) -> None:
    columns = device_cursors.c
    floor = select(streams.c.floor_seq).where(streams.c.user_id == columns.user_id).scalar_subquery()
    await connection.execute(
        delete(device_cursors).where(
            columns.user_id.in_(user_ids), columns.updated_at < before, columns.acked_seq <= floor
        )
    )
