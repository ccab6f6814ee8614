"""Counting notifications per user, type and window, for types that have a limit; one statement per batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import Integer, String, Uuid, delete, select, true
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.db.base import UtcDateTime
from notification_service.db.dialects import insert_into
from notification_service.db.rows import RowTypes, make_rows
from notification_service.event_types.entity import EventType
from notification_service.event_types.models import throttle_counters

Occurrence = tuple[EventType, UUID]
"""A user about to get one notification of a type."""


async def count_throttled(
    connection: AsyncConnection, occurrences: Sequence[Occurrence], *, now: datetime
) -> dict[Occurrence, int]:
    """Count these, and answer by type and user how many of them are too many (the last ones).

    Args:
        connection: In a write transaction.
        occurrences: Of types with a throttle; a user may appear several times.
    """
    wanted: Counter[tuple[str, UUID, datetime]] = Counter()
    types: dict[tuple[str, UUID, datetime], EventType] = {}
    for type_, user_id in occurrences:
        assert type_.throttle is not None
        start = _window_start(now, type_.throttle["window_seconds"])
        # Types of two tenants may share a code, their users are never the same.
        key = (type_.code, user_id, start)
        wanted[key] += 1
        types[key] = type_
    if not wanted:
        return {}
    columns: RowTypes = {"user_id": Uuid(), "event_type": String(), "window_start": UtcDateTime(), "count": Integer()}
    records = [(user_id, code, start, count) for (code, user_id, start), count in sorted(wanted.items())]
    rows = make_rows(connection, columns, records)
    insertion = insert_into(connection, throttle_counters).from_select(list(columns), select(*rows.c).where(true()))
    statement = insertion.on_conflict_do_update(
        index_elements=["user_id", "event_type", "window_start"],
        set_={"count": throttle_counters.c["count"] + insertion.excluded["count"]},
    ).returning(
        throttle_counters.c.user_id,
        throttle_counters.c.event_type,
        throttle_counters.c.window_start,
        throttle_counters.c["count"].label("number"),
    )
    excess: dict[Occurrence, int] = {}
    for row in await connection.execute(statement):
        key = (row.event_type, row.user_id, row.window_start)
        type_ = types[key]
        assert type_.throttle is not None
        over = min(wanted[key], row.number - type_.throttle["limit"])
        if over > 0:
            excess[type_, row.user_id] = over
    return excess


def _window_start(now: datetime, window_s: int) -> datetime:
    """Windows begin at multiples of their length since 1970, for everybody alike."""
    seconds = int(now.timestamp())
    return datetime.fromtimestamp(seconds - seconds % window_s, UTC)


async def forget_windows(connection: AsyncConnection, *, now: datetime, older_than: timedelta) -> int:
    """Delete counters of windows that are long over."""
    done = await connection.execute(
        delete(throttle_counters).where(throttle_counters.c.window_start < now - older_than)
    )
    return done.rowcount
