"""Sharing a channel's rate limit out fairly: whoever sends ten thousand does not make the others wait for all of them.

Turns are reserved in the order deliveries come. When turns fall due, they are given in equal parts to everybody who
waits (a tenant's sender is one share), and those whose turns were given away get the ones that were given up for them.
The times themselves stay what they are, so the limit is kept exactly; a sender that is alone keeps its order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import ColumnElement, Uuid, func, select, union_all, update
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.channels.models import deliveries
from notification_service.db.base import UtcDateTime
from notification_service.db.rows import RowTypes, make_rows

_MAX_TURNS: Final = 500
_MAX_SHARES: Final = 100
"""More than that take part in the next look, a second later: the longest waiting first."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A delivery that waits for its turn."""

    user_id: UUID
    id: UUID
    share: str
    at: datetime


async def exchange_turns(connection: AsyncConnection, *, now: datetime) -> int:
    """Give the turns that are due in equal parts to all who wait; answers how many changed hands.

    Args:
        connection: In a write transaction.
        now: When.
    """
    columns = deliveries.c
    is_due = columns.share.is_not(None) & columns.next_attempt_at.is_not(None) & (columns.next_attempt_at <= now)
    channels = (await connection.execute(select(columns.channel).where(is_due).distinct())).scalars().all()
    changed = 0
    for channel in channels:
        is_here = columns.channel == channel
        shares = (
            (
                await connection.execute(
                    select(columns.share)
                    .where(is_here, columns.share.is_not(None), columns.next_attempt_at.is_not(None))
                    .group_by(columns.share)
                    .order_by(func.min(columns.next_attempt_at))
                    .limit(_MAX_SHARES)
                )
            )
            .scalars()
            .all()
        )
        if len(shares) < 2:
            continue
        due = await _find(connection, is_here & is_due, limit=_MAX_TURNS)
        others = await _find_first_of_each(connection, channel, shares, limit=-(-len(due) // len(shares)))
        moves = exchange(due, others)
        changed += len(moves)
        await _write(connection, moves)
    return changed


def exchange(due: Sequence[Waiting], others: Sequence[Waiting]) -> list[tuple[Waiting, datetime]]:
    """Who gets another time, and which. Pure.

    Args:
        due: Everybody whose turn has come, in the order of their turns.
        others: The first few of everybody who waits, due or not, in that order.
    """
    rank: dict[str, int] = {}
    ranked = []
    for each in sorted(others, key=lambda one: one.at):
        rank[each.share] = rank.get(each.share, -1) + 1
        ranked.append((rank[each.share], each.at, each.id, each))
    chosen = [each for *_, each in sorted(ranked, key=lambda one: one[:3])][: len(due)]
    chosen_ids = {each.id for each in chosen}
    due_ids = {each.id for each in due}
    early = [each for each in chosen if each.id not in due_ids]
    # The last of those due make way.
    late = [each for each in reversed(due) if each.id not in chosen_ids][: len(early)]
    moves = []
    for goes, waits in zip(early, late, strict=False):
        moves += [(goes, waits.at), (waits, goes.at)]
    return moves


async def _find(connection: AsyncConnection, condition: ColumnElement[bool], *, limit: int) -> list[Waiting]:
    columns = deliveries.c
    rows = await connection.execute(
        select(columns.user_id, columns.id, columns.share, columns.next_attempt_at)
        .where(condition)
        .order_by(columns.next_attempt_at, columns.id)
        .limit(limit)
    )
    return [Waiting(row.user_id, row.id, row.share, row.next_attempt_at) for row in rows]


async def _find_first_of_each(
    connection: AsyncConnection, channel: str, shares: Sequence[str], *, limit: int
) -> list[Waiting]:
    """By the index on (channel, share, time): a backlog of any length costs no more than what is asked for."""
    columns = deliveries.c
    parts = [
        select(columns.user_id, columns.id, columns.share, columns.next_attempt_at)
        .where(columns.channel == channel, columns.share == share, columns.next_attempt_at.is_not(None))
        .order_by(columns.next_attempt_at, columns.id)
        .limit(limit)
        .subquery()
        for share in shares
    ]
    rows = await connection.execute(union_all(*(select(part) for part in parts)))
    return [Waiting(row.user_id, row.id, row.share, row.next_attempt_at) for row in rows]


async def _write(connection: AsyncConnection, moves: Sequence[tuple[Waiting, datetime]]) -> None:
    if not moves:
        return
    types: RowTypes = {"user_id": Uuid(), "id": Uuid(), "at": UtcDateTime()}
    rows = make_rows(connection, types, sorted((each.user_id, each.id, at) for each, at in moves))
    columns = deliveries.c
    await connection.execute(
        update(deliveries)
        .where(columns.user_id == rows.c.user_id, columns.id == rows.c.id, columns.share.is_not(None))
        .values(next_attempt_at=rows.c.at, not_before=rows.c.at)
    )
