"""Publishing deliveries to their work queues: right after the commit, and by the scheduler what a crash left or time
brought.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import orjson
import structlog
from sqlalchemy import Executable, FromClause, Integer, Uuid, and_, bindparam, func, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service import metrics
from notification_service.broker.publisher import Outcome, Outgoing, Publisher
from notification_service.channels.fairness import exchange_turns
from notification_service.channels.models import deliveries
from notification_service.channels.planned import KeptDelivery
from notification_service.clock import Clock
from notification_service.db.base import UtcDateTime
from notification_service.db.engine import Database
from notification_service.db.rows import RowsStatement, make_rows
from notification_service.errors import Unavailable
from shared_contracts import headers
from shared_contracts.delivery_state import DeliveryState
from shared_contracts.error_codes import Reason
from shared_contracts.topology import channel_queue

log = structlog.get_logger(__name__)

LOOK_AGAIN: Final = timedelta(minutes=30)
"""When a queued delivery is published once more, in case its queue was deleted. Twice in the queue is harmless: a
worker takes the attempt that is due, and drops the copy."""

HAS_TURN: Final = "x-herald-has-turn"
"""Header of a delivery that a rate limit has counted and held back: its turn has come."""

_HOLD: Final = timedelta(seconds=30)
_BATCH: Final = 500
_MEASURE_INTERVAL_S: Final = 15.0
_attempts = itertools.count()


def make_message(
    delivery: KeptDelivery, *, attempt: int, queue: str | None = None, expiration: timedelta | None = None, **more: Any
) -> Outgoing:
    """The message of one delivery's next attempt.

    Args:
        delivery: Which.
        attempt: Number of the attempt this message asks for, from 1. Counted here and in the table, never by the
            broker (requirement I02).
        queue: A step of the ladder; None: the work queue.
        expiration: How long it waits there.
        more: Further headers.
    """
    return Outgoing(
        exchange="",
        routing_key=queue or channel_queue(delivery.channel).name,
        body=orjson.dumps({"delivery_id": str(delivery.id), "user_id": str(delivery.user_id)}),
        message_id=f"{delivery.id}.{next(_attempts)}",
        type="delivery",
        headers={headers.ATTEMPT: attempt, **more},
        expiration=expiration,
    )


class Queueing:
    """Publishes deliveries and notes that they are queued."""

    def __init__(
        self, database: Database, publisher: Publisher, clock: Clock, *, interval: timedelta = timedelta(seconds=1)
    ) -> None:
        self._database = database
        self._publisher = publisher
        self._clock = clock
        self._interval = interval
        self._measure_at = 0.0

    async def publish(self, kept: Sequence[KeptDelivery]) -> None:
        """Publish new deliveries, after the commit. What is not confirmed is published by the sweep."""
        if not kept:
            return
        outcomes = await self._publisher.publish_all([make_message(each, attempt=1) for each in kept])
        queued = [(each, 1) for each, outcome in zip(kept, outcomes, strict=True) if outcome is Outcome.OK]
        if not queued:
            return
        try:
            async with self._database.write() as connection:
                await mark_queued(connection, queued, now=self._clock.now())
        except Unavailable:
            log.warning("deliveries_not_marked", deliveries=len(queued))

    async def run(self) -> None:
        """Sweep for ever."""
        while True:
            try:
                swept = await self.sweep()
            except Unavailable:
                log.warning("delivery_sweep_failed")
                swept = 0
            if swept < _BATCH:
                await self._clock.sleep(self._interval)

    async def sweep(self) -> int:
        """Publish deliveries whose time has come; answers how many."""
        if not self._publisher.link.is_ready:
            return 0
        now = self._clock.now()
        async with self._database.read() as connection:
            is_any_due = await has_due(connection, now=now)
            if self._clock.monotonic() >= self._measure_at:
                self._measure_at = self._clock.monotonic() + _MEASURE_INTERVAL_S
                await _measure(connection)
        # SQLite has one writer: an empty sweep must not be one.
        if not is_any_due:
            return 0
        async with self._database.write() as connection:
            await exchange_turns(connection, now=now)
            due = await claim_due(connection, now=now, hold=_HOLD, limit=_BATCH)
        messages = [make_message(each, attempt=attempt, **extra) for each, attempt, extra in due]
        outcomes = await self._publisher.publish_all(messages)
        queued = [
            (each, attempt) for (each, attempt, _), outcome in zip(due, outcomes, strict=True) if outcome is Outcome.OK
        ]
        if queued:
            async with self._database.write() as connection:
                await mark_queued(connection, queued, now=now)
        return len(due)


async def mark_queued(
    connection: AsyncConnection, queued: Collection[tuple[KeptDelivery, int]], *, now: datetime
) -> None:
    """Note that the broker has these, each with the number of its attempt; what a worker was faster with stays."""
    records = sorted((each.user_id, each.id, attempt - 1) for each, attempt in queued)
    await _MARK_QUEUED.execute(connection, records, now=now, look_again=now + LOOK_AGAIN)


def _build_mark_queued(_dialect_name: str, rows: FromClause) -> Executable:
    columns = deliveries.c
    # Without waiting for any: what is locked is being claimed, ended or changed by somebody who knows better. Whoever
    # waits here for a row while holding others could wait for ever (requirement F12: PostgreSQL found such deadlocks).
    free = (
        select(columns.user_id, columns.id)
        .join(rows, and_(columns.user_id == rows.c.user_id, columns.id == rows.c.id))
        .where(
            columns.status.in_((DeliveryState.PENDING, DeliveryState.QUEUED)),
            columns.attempts == rows.c.before,
            columns.settled_attempts == rows.c.before,
            (columns.not_before.is_(None)) | (columns.not_before <= bindparam("now", type_=UtcDateTime())),
        )
        .with_for_update(of=deliveries, skip_locked=True)
    )
    return (
        update(deliveries)
        .where(tuple_(columns.user_id, columns.id).in_(free))
        .values(
            status=DeliveryState.QUEUED,
            reason=None,
            not_before=None,
            next_attempt_at=bindparam("look_again", type_=UtcDateTime()),
        )
    )


_MARK_QUEUED = RowsStatement({"user_id": Uuid(), "id": Uuid(), "before": Integer()}, _build_mark_queued)


async def has_due(connection: AsyncConnection, *, now: datetime) -> bool:
    """Whether any delivery's time has come."""
    column = deliveries.c.next_attempt_at
    row = await connection.execute(select(deliveries.c.id).where(column.is_not(None), column <= now).limit(1))
    return row.first() is not None


async def claim_due(
    connection: AsyncConnection, *, now: datetime, hold: timedelta, limit: int
) -> list[tuple[KeptDelivery, int, dict[str, Any]]]:
    """Take deliveries whose time has come, oldest first, with the number of their next attempt and further headers.

    Nobody else gets them for the time of `hold`.
    """
    columns = deliveries.c
    due = (
        select(columns.user_id, columns.id)
        .where(columns.next_attempt_at.is_not(None), columns.next_attempt_at <= now)
        .order_by(columns.next_attempt_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    claimed = await connection.execute(
        update(deliveries)
        .where(tuple_(columns.user_id, columns.id).in_(due))
        .values(next_attempt_at=now + hold, share=None)
        .returning(columns.id, columns.user_id, columns.channel, columns.settled_attempts, columns.reason)
    )
    return [
        (
            KeptDelivery(row.id, row.user_id, row.channel),
            row.settled_attempts + 1,
            # It has waited for its turn: the rate limit has counted it already.
            {HAS_TURN: 1} if row.reason == Reason.THROTTLED else {},
        )
        for row in claimed
    ]


async def _measure(connection: AsyncConnection) -> None:
    columns = deliveries.c
    rows = await connection.execute(
        select(columns.status, func.count().label("number"))
        .where(columns.next_attempt_at.is_not(None))
        .group_by(columns.status)
    )
    waiting = {row.status: row.number for row in rows}
    for status in (DeliveryState.PENDING, DeliveryState.QUEUED):
        metrics.deliveries_waiting.labels(status).set(waiting.get(status, 0))


MAX_REPLAYS: Final = 10
"""Of one delivery: whoever replays more often should mend the cause first."""


async def requeue_deliveries(
    connection: AsyncConnection, keys: Sequence[tuple[UUID, UUID]], now: datetime
) -> set[UUID]:
    """Begin failed deliveries again, from the first step of the ladder; the sweep publishes them within a moment.

    Args:
        connection: In a write transaction.
        keys: (user, delivery). Those that have not failed, or were replayed too often, are left alone.
        now: When.

    Returns:
        The ids of those that begin again.
    """
    if not keys:
        return set()
    rows = make_rows(connection, {"user_id": Uuid(), "id": Uuid()}, sorted(keys))
    columns = deliveries.c
    begun = await connection.execute(
        update(deliveries)
        .where(
            columns.user_id == rows.c.user_id,
            columns.id == rows.c.id,
            columns.status == DeliveryState.FAILED,
            columns.replays < MAX_REPLAYS,
        )
        .values(
            status=DeliveryState.PENDING,
            reason=None,
            error=None,
            earlier_attempts=columns.earlier_attempts + columns.attempts,
            attempts=0,
            settled_attempts=0,
            replays=columns.replays + 1,
            not_before=None,
            next_attempt_at=now,
        )
        .returning(columns.id)
    )
    return set(begun.scalars())
