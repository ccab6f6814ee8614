"""Rolling hours up for the analytics summary: the last ones each minute, as reads and acknowledgements still come."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, Float, Select, and_, case, extract, func, literal, select
from sqlalchemy import cast as sql_cast
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.analytics import repository
from notification_service.analytics.latency import CLASSES_MS, add, name_classes
from notification_service.analytics.repository import hour_of
from notification_service.channels.models import deliveries
from notification_service.db.engine import Database
from notification_service.mailbox.models import broadcast_states, broadcasts, items, streams
from notification_service.notifications.models import notifications
from notification_service.notifications.repository import find_tenants
from shared_contracts.delivery_state import DeliveryState
from shared_contracts.requests import Channel

_HOLD: Final = timedelta(minutes=5)
_EVERY_MINUTE: Final = 2
"""Hours that are counted again each minute; older ones once more when the next hour begins."""
_AGAIN: Final = timedelta(hours=24)
_SENT: Final = (DeliveryState.SENT, DeliveryState.DELIVERED, DeliveryState.ACKED)
_DELIVERED: Final = (DeliveryState.DELIVERED, DeliveryState.ACKED)


class RollingUp:
    """Several schedulers may call it: one of them does it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._last_hour: datetime | None = None

    async def roll_up(self, now: datetime) -> int:
        """Count the hours that may have changed; answers how many."""
        async with self._database.write() as connection:
            done = await repository.claim(connection, now=now, hold=_HOLD)
        if done is None:
            return 0
        hour = hour_of(now)
        first = hour - timedelta(hours=_EVERY_MINUTE - 1)
        if self._last_hour != hour:
            # A new hour: late reads of the day before are counted once more.
            self._last_hour = hour
            first = min(done, hour - _AGAIN)
        hours = [first + timedelta(hours=number) for number in range(int((hour - first) / timedelta(hours=1)) + 1)]
        for each in hours:
            async with self._database.write() as connection:
                await repository.replace_hour(connection, each, await count_hour(connection, each))
        async with self._database.write() as connection:
            await repository.release(connection, rolled_up_to=hour - _AGAIN, now=now)
        return len(hours)


async def count_hour(connection: AsyncConnection, hour: datetime) -> list[dict[str, Any]]:
    """The rows of one hour, by tenant, event type and channel."""
    rows: list[dict[str, Any]] = []
    for tenant in await find_tenants(connection):
        for query in (_count_items(connection, tenant, hour), _count_shared(tenant, hour)):
            found = (await connection.execute(query)).all()
            rows += [_describe(tenant, str(Channel.IN_APP), row) for row in found]
        found = (await connection.execute(_count_deliveries(connection, tenant, hour))).all()
        rows += [_describe(tenant, row.channel, row) for row in found]
    return _merge(rows)


def _count_items(connection: AsyncConnection, tenant: str, hour: datetime) -> Select[Any]:
    acked = streams.c.acked_seq >= items.c.seq
    read = items.c.read_at.is_not(None)
    waited = _milliseconds(connection, notifications.c.dispatched_at, notifications.c.created_at)
    return (
        select(
            notifications.c.event_type,
            func.count().label("sent"),
            _sum(acked | read).label("delivered"),
            _sum(acked | read).label("acked"),
            _sum(read).label("read"),
            literal(0).label("failed"),
            literal(0).label("suppressed"),
            *_classes(waited),
        )
        .select_from(
            notifications.join(items, items.c.notification_id == notifications.c.id).join(
                streams, streams.c.user_id == items.c.user_id
            )
        )
        .where(*_of_hour(tenant, hour))
        .group_by(notifications.c.event_type)
    )


def _count_shared(tenant: str, hour: datetime) -> Select[Any]:
    """Broadcasts: one row for everybody; who read it has a row."""
    read = (
        select(func.count())
        .where(broadcast_states.c.notification_id == notifications.c.id, broadcast_states.c.read_at.is_not(None))
        .correlate(notifications)
        .scalar_subquery()
    )
    return (
        select(
            notifications.c.event_type,
            func.sum(func.coalesce(notifications.c.recipients_count, 0)).label("sent"),
            func.sum(read).label("delivered"),
            func.sum(read).label("acked"),
            func.sum(read).label("read"),
            literal(0).label("failed"),
            literal(0).label("suppressed"),
        )
        .select_from(notifications.join(broadcasts, broadcasts.c.notification_id == notifications.c.id))
        .where(*_of_hour(tenant, hour))
        .group_by(notifications.c.event_type)
    )


def _count_deliveries(connection: AsyncConnection, tenant: str, hour: datetime) -> Select[Any]:
    columns = deliveries.c
    waited = _milliseconds(connection, columns.sent_at, columns.created_at)
    return (
        select(
            notifications.c.event_type,
            columns.channel,
            _sum(columns.status.in_(_SENT)).label("sent"),
            _sum(columns.status.in_(_DELIVERED)).label("delivered"),
            _sum(columns.status == DeliveryState.ACKED.value).label("acked"),
            literal(0).label("read"),
            _sum(columns.status.in_((DeliveryState.FAILED, DeliveryState.EXPIRED))).label("failed"),
            _sum(columns.status == DeliveryState.SUPPRESSED.value).label("suppressed"),
            *_classes(waited),
        )
        .select_from(deliveries.join(notifications, notifications.c.id == columns.notification_id))
        .where(
            columns.tenant == tenant,
            columns.created_at >= hour,
            columns.created_at < hour + timedelta(hours=1),
        )
        .group_by(notifications.c.event_type, columns.channel)
    )


def _of_hour(tenant: str, hour: datetime) -> Sequence[ColumnElement[bool]]:
    columns = notifications.c
    return (columns.tenant == tenant, columns.created_at >= hour, columns.created_at < hour + timedelta(hours=1))


def _sum(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return func.sum(case((condition, 1), else_=0))


def _milliseconds(
    connection: AsyncConnection, later: ColumnElement[Any], earlier: ColumnElement[Any]
) -> ColumnElement[Any]:
    if connection.dialect.name == "sqlite":
        return (func.julianday(later) - func.julianday(earlier)) * 86_400_000.0
    return sql_cast(extract("epoch", later - earlier), Float) * 1000.0


def _classes(waited: ColumnElement[Any]) -> list[ColumnElement[int]]:
    bounds = (None, *CLASSES_MS, None)
    counts: list[ColumnElement[int]] = []
    for number in range(len(CLASSES_MS) + 1):
        low, high = bounds[number], bounds[number + 1]
        within = and_(
            waited.is_not(None),
            *((waited > low,) if low is not None else ()),
            *((waited <= high,) if high is not None else ()),
        )
        counts.append(_sum(within).label(f"class_{number}"))
    return counts


def _describe(tenant: str, channel: str, row: Any) -> dict[str, Any]:
    found = row._mapping  # noqa: SLF001 - SQLAlchemy's public name
    histogram = (
        name_classes([int(found[f"class_{number}"] or 0) for number in range(len(CLASSES_MS) + 1)])
        if "class_0" in found
        else {}
    )
    counts = {name: int(found[name] or 0) for name in repository.COUNTS}
    return {"tenant": tenant, "event_type": row.event_type, "channel": channel, **counts, "latencies": histogram}


def _merge(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Items, broadcasts and what was suppressed in-app are one row each."""
    merged: dict[tuple[str, str, str], dict[str, Any]] = {}
    for row in rows:
        key = (row["tenant"], row["event_type"], row["channel"])
        known = merged.get(key)
        if known is None:
            merged[key] = row
            continue
        for name in repository.COUNTS:
            known[name] += row[name]
        known["latencies"] = add(known["latencies"], row["latencies"])
    return list(merged.values())
