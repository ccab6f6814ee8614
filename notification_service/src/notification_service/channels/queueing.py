"""Publishing deliveries to their work queues: right after the commit, by the scheduler what a crash left or time
brought, and by workers what waited for room.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import orjson
import structlog
from sqlalchemy import (
    ColumnElement,
    Executable,
    FromClause,
    Integer,
    String,
    Uuid,
    and_,
    bindparam,
    case,
    func,
    select,
    tuple_,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service import metrics
from notification_service.broker.publisher import Outcome, Outgoing, Publisher
from notification_service.channels.admission import Admission, make_share
from notification_service.channels.fairness import exchange_turns
from notification_service.channels.holding import claim_held
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
_RELEASE_GRACE: Final = timedelta(minutes=2)
"""From a release until the sweep publishes what no worker has begun: RabbitMQ was away, or the process died."""
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


Due = tuple[KeptDelivery, int, dict[str, Any]]
"""A delivery to be published, the number of its attempt, and further headers."""


class Queueing:
    """Publishes deliveries and notes that they are queued, or that they wait for room.

    Attributes:
        held: Set when something was held back by this process: its own workers need not look for it.
    """

    def __init__(
        self, database: Database, publisher: Publisher, clock: Clock, *, interval: timedelta = timedelta(seconds=1)
    ) -> None:
        self._database = database
        self._publisher = publisher
        self._clock = clock
        self._interval = interval
        self._admission = Admission()
        self._measure_at = 0.0
        self.held = asyncio.Event()

    @property
    def is_ready(self) -> bool:
        """Whether RabbitMQ is there to publish to."""
        return self._publisher.link.is_ready

    async def publish(self, kept: Sequence[KeptDelivery]) -> None:
        """Publish new deliveries, after the commit. What is not confirmed is published by the sweep."""
        if kept:
            await self._publish_or_hold([(each, 1, {}) for each in kept])

    async def release(self, channel: str, parts: Mapping[tuple[str, str], int]) -> int:
        """Publish what waited for room; answers how many.

        Args:
            channel: Where there is room now.
            parts: How many of each tenant and share, at least one.

        Raises:
            Unavailable: The database does not answer.
        """
        look_again = self._clock.now() + _RELEASE_GRACE
        async with self._database.write() as connection:
            claimed = await claim_held(connection, channel, parts, look_again=look_again)
        if claimed:
            await self._publisher.publish_all([make_message(each, attempt=attempt) for each, attempt in claimed])
        return len(claimed)

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
        if not self.is_ready:
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
        await self._publish_or_hold(due)
        return len(due)

    async def _publish_or_hold(self, due: Sequence[Due]) -> None:
        """The first few of each share go, the rest of a flood waits. Whoever has waited for a turn goes in any case."""
        going, held, now = [], [], self._clock.monotonic()
        for one in due:
            each, attempt, extra = one
            if HAS_TURN in extra or self._admission.admit(each.channel, each.share, now):
                going.append(one)
            else:
                held.append((each, attempt))
        await self._publish(going, held)
        if held:
            self.held.set()

    async def _publish(self, due: Sequence[Due], held: Sequence[tuple[KeptDelivery, int]]) -> None:
        messages = [make_message(each, attempt=attempt, **extra) for each, attempt, extra in due]
        outcomes = await self._publisher.publish_all(messages) if messages else []
        queued = [
            (each, attempt) for (each, attempt, _), outcome in zip(due, outcomes, strict=True) if outcome is Outcome.OK
        ]
        if not queued and not held:
            return
        try:
            async with self._database.write() as connection:
                await mark_queued(connection, queued, now=self._clock.now())
                await hold_back(connection, held, now=self._clock.now())
        except Unavailable:
            log.warning("deliveries_not_marked", deliveries=len(queued) + len(held))


async def mark_queued(
    connection: AsyncConnection, queued: Collection[tuple[KeptDelivery, int]], *, now: datetime
) -> None:
    """Note that the broker has these, each with the number of its attempt; what a worker was faster with stays."""
    if queued:
        records = sorted((each.user_id, each.id, attempt - 1) for each, attempt in queued)
        await _MARK_QUEUED.execute(connection, records, now=now, look_again=now + LOOK_AGAIN)


async def hold_back(connection: AsyncConnection, held: Collection[tuple[KeptDelivery, int]], *, now: datetime) -> None:
    """Note that these wait for room, each with the number of its attempt; a worker that has room publishes them."""
    if held:
        records = sorted((each.user_id, each.id, attempt - 1, each.share) for each, attempt in held)
        await _HOLD_BACK.execute(connection, records, now=now, look_again=now + LOOK_AGAIN)


def _is_unchanged(rows: FromClause) -> ColumnElement[bool]:
    """The condition of those that are as they were when it was decided what becomes of them."""
    columns = deliveries.c
    return and_(
        columns.user_id == rows.c.user_id,
        columns.id == rows.c.id,
        columns.status.in_((DeliveryState.PENDING, DeliveryState.QUEUED)),
        columns.attempts == rows.c.before,
        columns.settled_attempts == rows.c.before,
        (columns.not_before.is_(None)) | (columns.not_before <= bindparam("now", type_=UtcDateTime())),
    )


def _is_free(rows: FromClause) -> ColumnElement[bool]:
    """The same, without waiting for any: what is locked is being claimed, ended or changed by one who knows better.

    Whoever waits here for a row while holding others could wait for ever (requirement F12: PostgreSQL found such
    deadlocks).
    """
    columns = deliveries.c
    free = select(columns.user_id, columns.id).join(rows, _is_unchanged(rows))
    return tuple_(columns.user_id, columns.id).in_(free.with_for_update(of=deliveries, skip_locked=True))


_MARK_QUEUED = RowsStatement(
    {"user_id": Uuid(), "id": Uuid(), "before": Integer()},
    lambda _, rows: (
        update(deliveries)
        .where(_is_free(rows))
        .values(
            status=DeliveryState.QUEUED,
            reason=None,
            not_before=None,
            next_attempt_at=bindparam("look_again", type_=UtcDateTime()),
        )
    ),
)


def _build_hold_back(dialect_name: str, rows: FromClause) -> Executable:
    columns = deliveries.c
    is_its = and_(columns.user_id == rows.c.user_id, columns.id == rows.c.id)
    # SQLite has no locks of rows, and would go through all the rows once for each.
    condition = _is_unchanged(rows) if dialect_name == "sqlite" else and_(is_its, _is_free(rows))
    return (
        update(deliveries)
        .where(condition)
        .values(held_share=rows.c.share, next_attempt_at=bindparam("look_again", type_=UtcDateTime()))
    )


_HOLD_BACK = RowsStatement({"user_id": Uuid(), "id": Uuid(), "before": Integer(), "share": String()}, _build_hold_back)


async def has_due(connection: AsyncConnection, *, now: datetime) -> bool:
    """Whether any delivery's time has come."""
    column = deliveries.c.next_attempt_at
    row = await connection.execute(select(deliveries.c.id).where(column.is_not(None), column <= now).limit(1))
    return row.first() is not None


async def claim_due(connection: AsyncConnection, *, now: datetime, hold: timedelta, limit: int) -> list[Due]:
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
        .values(next_attempt_at=now + hold, share=None, held_share=None)
        .returning(
            columns.id, columns.user_id, columns.channel, columns.tenant, columns.settled_attempts, columns.reason
        )
    )
    return [
        (
            # Who sent it is not asked: what time brings is shared out between tenants.
            KeptDelivery(row.id, row.user_id, row.channel, make_share(row.tenant, "")),
            row.settled_attempts + 1,
            # It has waited for its turn: the rate limit has counted it already.
            {HAS_TURN: 1} if row.reason == Reason.THROTTLED else {},
        )
        for row in claimed
    ]


async def _measure(connection: AsyncConnection) -> None:
    columns = deliveries.c
    state = case((columns.held_share.is_not(None), "held"), else_=columns.status)
    rows = await connection.execute(
        select(state.label("state"), func.count().label("number"))
        .where(columns.next_attempt_at.is_not(None))
        .group_by(state)
    )
    waiting = {row.state: row.number for row in rows}
    for each in (DeliveryState.PENDING, DeliveryState.QUEUED, "held"):
        metrics.deliveries_waiting.labels(each).set(waiting.get(each, 0))


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
