"""Deliveries that wait in the table for room in their channel's queue, found and taken by whose they are.

Nobody else needs to know of them: they are pending, and the sweep's time to look again is theirs, too. Every look is a
look at one index, so it costs the same however many wait.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime

from sqlalchemy import (
    ColumnElement,
    Executable,
    FromClause,
    ScalarSelect,
    String,
    Uuid,
    and_,
    bindparam,
    case,
    func,
    literal,
    select,
    tuple_,
    union_all,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.channels.models import deliveries
from notification_service.channels.planned import KeptDelivery
from notification_service.db.base import UtcDateTime
from notification_service.db.rows import RowsStatement
from shared_contracts.delivery_state import DeliveryState

_WAITING = (DeliveryState.PENDING, DeliveryState.QUEUED)


async def find_channels_held(connection: AsyncConnection, channels: Collection[str]) -> set[str]:
    """Those of these channels over which something waits for room."""
    looks = [
        select(literal(channel, String()).label("channel"), _find_first(deliveries.c.tenant, channel).label("tenant"))
        for channel in sorted(channels)
    ]
    rows = await connection.execute(union_all(*looks)) if looks else ()
    return {row.channel for row in rows if row.tenant is not None}


async def list_tenants_held(connection: AsyncConnection, channel: str, *, after: str, limit: int) -> list[str]:
    """Tenants of whom something waits, by their names, beginning after one of them (a loose index scan)."""
    column = deliveries.c.tenant
    first = _find_first(column, channel, column > after)
    walk = select(first.label("tenant"), literal(1).label("number")).cte("walk", recursive=True)
    following = _find_first(column, channel, column > walk.c.tenant)
    walk = walk.union_all(select(following, walk.c.number + 1).where(walk.c.tenant.is_not(None), walk.c.number < limit))
    return list((await connection.execute(select(walk.c.tenant).where(walk.c.tenant.is_not(None)))).scalars())


async def find_next_shares(connection: AsyncConnection, channel: str, after: Mapping[str, str]) -> dict[str, str]:
    """For each of these tenants whose turn it is: the share after the one that had it last, or the first one again.

    Args:
        connection: For reading.
        channel: Which.
        after: Who had the last turn, by tenant; an empty text: nobody.
    """
    tenants, share = deliveries.c.tenant, deliveries.c.held_share
    looks = [
        select(
            literal(tenant, String()).label("tenant"),
            func.coalesce(
                _find_first(share, channel, tenants == tenant, share > last),
                _find_first(share, channel, tenants == tenant),
            ).label("share"),
        )
        for tenant, last in after.items()
    ]
    rows = await connection.execute(union_all(*looks))
    return {row.tenant: row.share for row in rows if row.share is not None}


async def claim_held(
    connection: AsyncConnection, channel: str, parts: Mapping[tuple[str, str], int], *, look_again: datetime
) -> list[tuple[KeptDelivery, int]]:
    """Take the oldest of each share, to be published at once, with the number of their next attempt.

    Args:
        connection: In a write transaction.
        channel: Which.
        parts: How many of each tenant and share.
        look_again: When the sweep publishes them again, should no worker have begun by then.
    """
    columns = deliveries.c
    oldest = [
        select(columns.user_id, columns.id)
        .where(_is_held(channel), columns.tenant == tenant, columns.held_share == share)
        .order_by(columns.created_at, columns.id)
        .limit(part)
        .subquery()
        for (tenant, share), part in parts.items()
    ]
    chosen = (await connection.execute(union_all(*(select(each) for each in oldest)))).all()
    if not chosen:
        return []
    keys = sorted((row.user_id, row.id) for row in chosen)
    return [
        (KeptDelivery(row.id, row.user_id, row.channel), row.settled_attempts + 1)
        for row in await _CLAIM.execute(connection, keys, look_again=look_again)
        if row.status in _WAITING
    ]


def _build_claim(_dialect_name: str, rows: FromClause) -> Executable:
    columns = deliveries.c
    # Another worker may be about to take the same ones.
    free = (
        select(columns.user_id, columns.id)
        .join(rows, and_(columns.user_id == rows.c.user_id, columns.id == rows.c.id))
        .where(columns.held_share.is_not(None))
        .with_for_update(of=deliveries, skip_locked=True)
    )
    # What was recalled meanwhile has ended, and only leaves the line.
    is_waiting = columns.status.in_(_WAITING)
    look_again = case((is_waiting, bindparam("look_again", type_=UtcDateTime())), else_=columns.next_attempt_at)
    return (
        update(deliveries)
        .where(tuple_(columns.user_id, columns.id).in_(free))
        .values(
            held_share=None,
            status=case((is_waiting, DeliveryState.QUEUED), else_=columns.status),
            next_attempt_at=look_again,
        )
        .returning(columns.id, columns.user_id, columns.channel, columns.status, columns.settled_attempts)
    )


_CLAIM = RowsStatement({"user_id": Uuid(), "id": Uuid()}, _build_claim)


def _is_held(channel: str) -> ColumnElement[bool]:
    return (deliveries.c.channel == channel) & deliveries.c.held_share.is_not(None)


def _find_first(column: ColumnElement[str], channel: str, *conditions: ColumnElement[bool]) -> ScalarSelect[str]:
    """The first one in the order of the index. Not `min`: before PostgreSQL knows how many there are, it reads them all
    for it, 3 ms for 10,000.
    """
    return select(column).where(_is_held(channel), *conditions).order_by(column).limit(1).scalar_subquery()
