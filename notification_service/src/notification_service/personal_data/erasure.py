"""Erasing what this service holds about people whose accounts were erased.

An erasure is written down in the transaction that takes the user out of the mirror, so none is forgotten. It is swept
several times: what was under way at the first time (a notification being stored, a device's last acknowledgement, a
request in a queue) has arrived at the second, and at the last one no token of the user is valid any more.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import structlog
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.clock import Clock
from notification_service.db.base import AnyRow
from notification_service.db.dialects import insert_into
from notification_service.db.engine import Database
from notification_service.errors import Unavailable
from notification_service.identity import audit
from notification_service.identity.mirror_rows import Event
from notification_service.identity.models import users
from notification_service.identity.personal_data import PersonalData, Subject
from notification_service.personal_data.models import erasures
from shared_contracts.identity_events import UserDeletedEvent

log = structlog.get_logger(__name__)

SWEEP_AFTER: Final = (timedelta(seconds=15), timedelta(minutes=20))
"""After the first sweep, which comes at once: when closing sockets have written their last, and when the longest-lived
access token has expired, which is taken without question while the auth service is away."""

_POLL: Final = timedelta(seconds=5)
_RETRY: Final = timedelta(seconds=30)
_BATCH: Final = 20

DeleteQueue = Callable[[UUID], Awaitable[None]]
"""Deletes the user's queue, if there is one; raises `Unavailable`."""

PurgeQueues = Callable[[Sequence[Subject]], Awaitable[int]]
"""Takes messages that name these users out of shared queues; answers how many. Raises `Unavailable`."""


async def request_erasure(connection: AsyncConnection, user_id: UUID, tenant: str, *, clock: Clock) -> None:
    """Write down that this user is to be erased, before the mirror forgets them. Asking twice is asking once."""
    found = await connection.execute(select(users.c.external_id).where(users.c.id == user_id))
    now = clock.now()
    await connection.execute(
        insert_into(connection, erasures)
        .values(
            user_id=user_id,
            tenant=tenant,
            external_id=found.scalar_one_or_none(),
            requested_at=now,
            next_sweep_at=now,
            sweeps=0,
            report={},
        )
        .on_conflict_do_nothing()
    )


class Eraser:
    """Sweeps erasures that are due. Several processes may run it; each erasure is swept by one at a time."""

    def __init__(
        self,
        *,
        database: Database,
        parts: Sequence[PersonalData],
        delete_queue: DeleteQueue,
        purge_queues: PurgeQueues,
        clock: Clock,
    ) -> None:
        self._database = database
        self._parts = tuple(parts)
        self._delete_queue = delete_queue
        self._purge_queues = purge_queues
        self._clock = clock
        self._has_work = asyncio.Event()

    async def on_events(self, events: Sequence[Event]) -> None:
        """Follows the mirror: an erasure need not wait for the next look."""
        if any(isinstance(event, UserDeletedEvent) for event in events):
            self._has_work.set()

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            try:
                while await self.sweep():
                    pass
            except Unavailable as error:
                log.warning("erasures_wait", problem=error.detail)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_POLL.total_seconds()):
                    await self._has_work.wait()
            self._has_work.clear()

    async def sweep(self) -> int:
        """Sweep what is due, some users at a time; answers how many.

        Raises:
            Unavailable: The database does not answer; what is not done is tried again.
        """
        due = await self._claim()
        if due:
            is_queue_gone = await self._erase_at_broker(due)
            for row in due:
                await self._sweep_one(row, is_done=is_queue_gone)
        return len(due)

    async def _erase_at_broker(self, due: Sequence[AnyRow]) -> bool:
        try:
            for row in due:
                await self._delete_queue(row.user_id)
            purged = await self._purge_queues([_subject(row) for row in due])
        except Unavailable as error:
            # The database is not kept waiting; this sweep comes again.
            log.warning("queues_not_erased", problem=error.detail)
            return False
        if purged:
            log.info("queued_copies_erased", messages=purged)
        return True

    async def _claim(self) -> list[AnyRow]:
        now = self._clock.now()
        columns = erasures.c
        candidates = select(columns.user_id).where(columns.next_sweep_at <= now).order_by(columns.next_sweep_at)
        async with self._database.write() as connection:
            claimed = await connection.execute(
                update(erasures)
                # The condition again: of two processes that found the same row, one waits here and finds it taken.
                .where(columns.user_id.in_(candidates.limit(_BATCH)), columns.next_sweep_at <= now)
                .values(next_sweep_at=now + _RETRY)
                .returning(*columns)
            )
            return list(claimed.all())

    async def _sweep_one(self, row: AnyRow, *, is_done: bool) -> None:
        subject = _subject(row)
        now = self._clock.now()
        is_last = is_done and row.sweeps >= len(SWEEP_AFTER)
        progress: dict[str, Any] = {}
        if is_done:
            progress = {"sweeps": row.sweeps + 1, "next_sweep_at": None if is_last else now + SWEEP_AFTER[row.sweeps]}
        async with self._database.write() as connection:
            found: Counter[str] = Counter()
            for part in self._parts:
                found.update(await part.erase(connection, subject))
            counts = {name: count for name, count in sorted(found.items()) if count}
            if counts or (is_done and row.sweeps == 0):
                await audit.record(
                    connection,
                    audit.SYSTEM,
                    "user.data_erased",
                    subject=("user", str(subject.user_id)),
                    tenant=subject.tenant,
                    details=counts,
                    now=now,
                )
            await connection.execute(
                update(erasures)
                .where(erasures.c.user_id == subject.user_id)
                .values(
                    **progress,
                    external_id=None if is_last else row.external_id,
                    report=dict(Counter(row.report) + Counter(counts)),
                )
            )
        log.info("personal_data_erased", user_id=str(subject.user_id), sweep=row.sweeps + 1, **counts)


def _subject(row: AnyRow) -> Subject:
    return Subject(row.user_id, row.tenant, row.external_id)
