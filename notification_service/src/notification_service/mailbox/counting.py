"""Unread and unseen counts: kept in the user's row, never counted."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import Executable, FromClause, Uuid, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.db.base import AnyRow, UtcDateTime
from notification_service.db.rows import RowsStatement
from notification_service.identity.models import users
from notification_service.mailbox.live_broadcasts import LiveList
from notification_service.mailbox.models import broadcasts, streams
from notification_service.notifications.kept import Counts

COUNT_COLUMNS = (
    streams.c.unread,
    streams.c.unseen,
    streams.c.total,
    streams.c.broadcasts_read,
    streams.c.broadcasts_seen,
    streams.c.broadcasts_removed,
    streams.c.broadcast_floor,
)


def add_broadcasts(row: AnyRow, floor: int, live: LiveList, now: datetime) -> Counts:
    """The counts of one user: the mailbox's own, plus the live broadcasts this user has not dealt with.

    A broadcast that expired but is not swept yet is still among the user's read ones; the result never goes below the
    mailbox's own counts.
    """
    alive = live.count_after(floor, now)
    return Counts(
        unread=row.unread + max(0, alive - row.broadcasts_read),
        unseen=row.unseen + max(0, alive - row.broadcasts_seen),
        total=row.total + max(0, alive - row.broadcasts_removed),
    )


async def find_floors(connection: AsyncConnection, user_ids: Collection[UUID]) -> dict[UUID, int]:
    """Look up, and remember in their rows, which broadcasts were before these users' time.

    A user the mirror does not know yet appeared a moment ago. The id tells when (UUIDv7); that is not remembered, so
    that it is looked up again when the mirror knows.
    """
    rows = await _REMEMBER_FLOORS.execute(connection, [(each,) for each in user_ids])
    floors: dict[UUID, int] = {row.user_id: row.broadcast_floor for row in rows}
    unknown = [(each, _find_birth(each)) for each in user_ids if each not in floors]
    if unknown:
        floors |= {row.id: row.floor for row in await _FIND_FLOORS.execute(connection, unknown)}
    return floors


def _build_remember_floors(_dialect_name: str, wanted: FromClause) -> Executable:
    # Said aloud: by itself SQLAlchemy correlates with the next statement outwards only, and would join all streams.
    appeared = select(users.c.created_at).where(users.c.id == streams.c.user_id).correlate(streams).scalar_subquery()
    before = (
        select(func.coalesce(func.max(broadcasts.c.seq), 0))
        .where(broadcasts.c.tenant == streams.c.tenant, broadcasts.c.created_at < appeared)
        .correlate(streams)
        .scalar_subquery()
    )
    return (
        update(streams)
        .where(streams.c.user_id == wanted.c.id, streams.c.broadcast_floor.is_(None), appeared.is_not(None))
        .values(broadcast_floor=before)
        .returning(streams.c.user_id, streams.c.broadcast_floor)
    )


def _build_find_floors(_dialect_name: str, wanted: FromClause) -> Executable:
    before = (
        select(func.coalesce(func.max(broadcasts.c.seq), 0))
        .where(
            broadcasts.c.tenant == streams.c.tenant,
            wanted.c.appeared.is_(None) | (broadcasts.c.created_at < wanted.c.appeared),
        )
        .correlate(streams, wanted)
        .scalar_subquery()
    )
    return select(wanted.c.id, before.label("floor")).join(streams, streams.c.user_id == wanted.c.id)


_REMEMBER_FLOORS = RowsStatement({"id": Uuid()}, _build_remember_floors)
_FIND_FLOORS = RowsStatement({"id": Uuid(), "appeared": UtcDateTime()}, _build_find_floors)


async def read_floor(connection: AsyncConnection, user_id: UUID, tenant: str) -> int:
    """The same for one user who may have no stream yet; nothing is written."""
    known = (
        await connection.execute(select(streams.c.broadcast_floor).where(streams.c.user_id == user_id))
    ).scalar_one_or_none()
    if known is not None:
        return int(known)
    appeared = (await connection.execute(select(users.c.created_at).where(users.c.id == user_id))).scalar_one_or_none()
    appeared = appeared or _find_birth(user_id)
    query = select(func.coalesce(func.max(broadcasts.c.seq), 0)).where(broadcasts.c.tenant == tenant)
    if appeared is not None:
        query = query.where(broadcasts.c.created_at < appeared)
    floor: int = (await connection.execute(query)).scalar_one()
    return floor


def _find_birth(user_id: UUID) -> datetime | None:
    """When this id was made, if it says so (RFC 9562, section 5.7: the first 48 bits are milliseconds since 1970)."""
    return datetime.fromtimestamp((user_id.int >> 80) / 1000, UTC) if user_id.version == 7 else None
