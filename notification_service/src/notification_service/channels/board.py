"""The states of all circuit breakers, of every worker process, where everybody can see them.

Each worker keeps breakers of its own, in memory, because they decide in microseconds; what changes is written here
within a second, and again now and then, so that the word of a process that died counts no longer than a minute.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import structlog
from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.channels.breakers import Breakers
from notification_service.channels.models import channel_breakers, deliveries
from notification_service.clock import Clock
from notification_service.db.engine import Database
from notification_service.errors import Unavailable

log = structlog.get_logger(__name__)

VALID_FOR: Final = timedelta(seconds=60)
_LOOK: Final = timedelta(seconds=1)
_SAY_AGAIN: Final = timedelta(seconds=20)
_MAX_SHOWN: Final = 1000


class BreakerBoard:
    """Tells of one process's breakers."""

    def __init__(self, database: Database, clock: Clock, *, node_id: str, breakers: Sequence[Breakers]) -> None:
        self._database = database
        self._clock = clock
        self._node_id = node_id[:100]
        self._breakers = breakers
        self._said_at: datetime | None = None

    async def run(self) -> None:
        """Tell for ever."""
        while True:
            await self._clock.sleep(_LOOK)
            try:
                await self.tell()
            except Unavailable:
                log.warning("breakers_not_told")

    async def tell(self) -> None:
        """Write what changed, or everything when it is time to say it again."""
        now = self._clock.now()
        is_due = self._said_at is not None and now - self._said_at >= _SAY_AGAIN
        if not is_due and not any(each.changed for each in self._breakers):
            return
        rows = [
            {
                "node_id": self._node_id,
                "channel": each.channel,
                "route": route[:255],
                "state": state,
                "changed_at": changed_at,
                "seen_at": now,
            }
            for each in self._breakers
            for route, (state, changed_at) in each.not_closed(now).items()
        ]
        for each in self._breakers:
            each.changed.clear()
        columns = channel_breakers.c
        async with self._database.write() as connection:
            is_old = (columns.node_id == self._node_id) | (columns.seen_at < now - VALID_FOR)
            await connection.execute(delete(channel_breakers).where(is_old))
            if rows:
                await connection.execute(channel_breakers.insert(), rows[:_MAX_SHOWN])
        # Nothing to say is nothing to repeat.
        self._said_at = now if rows else None

    async def stop(self) -> None:
        """This process has nothing to say any more."""
        if self._said_at is None:
            return
        async with self._database.write() as connection:
            await connection.execute(delete(channel_breakers).where(channel_breakers.c.node_id == self._node_id))


@dataclass(frozen=True, slots=True)
class BreakerState:
    """What one worker process thinks of one provider account or endpoint."""

    channel: str
    route: str
    state: str
    since: datetime
    node: str


async def list_breakers(connection: AsyncConnection, *, now: datetime) -> list[BreakerState]:
    """Breakers that are not closed, by channel and route."""
    columns = channel_breakers.c
    rows = await connection.execute(
        select(channel_breakers)
        .where(columns.seen_at >= now - VALID_FOR)
        .order_by(columns.channel, columns.route, columns.node_id)
        .limit(_MAX_SHOWN)
    )
    return [BreakerState(row.channel, row.route, row.state, row.changed_at, row.node_id) for row in rows]


async def count_waiting(connection: AsyncConnection) -> dict[str, dict[str, int]]:
    """Deliveries that have not ended, by channel and state."""
    columns = deliveries.c
    rows = await connection.execute(
        select(columns.channel, columns.status, func.count().label("number"))
        .where(columns.next_attempt_at.is_not(None))
        .group_by(columns.channel, columns.status)
    )
    waiting: dict[str, dict[str, int]] = {}
    for row in rows:
        waiting.setdefault(row.channel, {})[row.status] = row.number
    return waiting
