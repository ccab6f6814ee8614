"""Reading and writing the rolled-up hours."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.analytics.models import analytics_hours, analytics_progress
from notification_service.db.base import AnyRow
from notification_service.db.dialects import insert_into

_NAME: Final = "hours"
COUNTS: Final = ("sent", "delivered", "acked", "read", "failed", "suppressed")


def hour_of(moment: datetime) -> datetime:
    """The hour a moment is in."""
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


async def claim(connection: AsyncConnection, *, now: datetime, hold: timedelta) -> datetime | None:
    """Become the one who rolls up, for a while; answers up to when it is done for good, None: somebody else is at it.

    Args:
        connection: In a write transaction.
    """
    columns = analytics_progress.c
    await connection.execute(
        insert_into(connection, analytics_progress)
        .values(name=_NAME, rolled_up_to=hour_of(now) - timedelta(days=1), held_until=now)
        .on_conflict_do_nothing()
    )
    found = await connection.execute(
        update(analytics_progress)
        .where(columns.name == _NAME, columns.held_until <= now)
        .values(held_until=now + hold)
        .returning(columns.rolled_up_to)
    )
    moment: datetime | None = found.scalar_one_or_none()
    return moment


async def release(connection: AsyncConnection, *, rolled_up_to: datetime, now: datetime) -> None:
    """It is done: hours before this moment are not counted again, and somebody else may go on."""
    await connection.execute(
        update(analytics_progress)
        .where(analytics_progress.c.name == _NAME)
        .values(rolled_up_to=rolled_up_to, held_until=now)
    )


async def replace_hour(connection: AsyncConnection, hour: datetime, rows: Sequence[dict[str, Any]]) -> None:
    """Replace everything known about an hour: counting it twice gives the same."""
    await connection.execute(delete(analytics_hours).where(analytics_hours.c.hour == hour))
    if rows:
        await connection.execute(insert(analytics_hours), [{"hour": hour, **row} for row in rows])


async def read_hours(connection: AsyncConnection, *, tenant: str, since: datetime, until: datetime) -> list[AnyRow]:
    """A tenant's hours of a time, in order."""
    columns = analytics_hours.c
    rows = await connection.execute(
        select(analytics_hours)
        .where(columns.tenant == tenant, columns.hour >= since, columns.hour < until)
        .order_by(columns.hour, columns.channel, columns.event_type)
    )
    return list(rows.all())
