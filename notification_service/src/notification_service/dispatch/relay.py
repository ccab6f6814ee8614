"""The relay: what a crash left between commit and confirm is found and published again. Safe to run twice.

Publishing twice is harmless: the intake knows a notification by its id, gateways know a frame by its number.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import structlog

from notification_service import metrics
from notification_service.broker.publisher import Outcome, Publisher
from notification_service.clock import Clock
from notification_service.db.base import AnyRow
from notification_service.db.dialects import try_lock
from notification_service.db.engine import Database
from notification_service.dispatch.dispatcher import Dispatched, Dispatcher
from notification_service.dispatch.marks import DispatchMarks
from notification_service.dispatch.ports import KeptSource
from notification_service.errors import Unavailable
from notification_service.notifications.entity import Notification
from notification_service.notifications.handover import make_intake_message
from notification_service.notifications.repository import claim_for_relay, measure_outbox, to_notification

log = structlog.get_logger(__name__)

_BATCH: Final = 200
# Any number that nothing else on the same database locks.
_LOCK_NUMBER: Final = 0x48E7A1E


class Relay:
    """Sweeps for overdue notifications. Several may run: one sweeps at a time, so that the order is kept.

    Should two do so all the same, a claimed row is nobody else's while it is held.
    """

    def __init__(
        self,
        *,
        database: Database,
        publisher: Publisher,
        dispatcher: Dispatcher,
        marks: DispatchMarks,
        kept: KeptSource,
        clock: Clock,
        interval: timedelta,
        hold: timedelta,
    ) -> None:
        self._database = database
        self._publisher = publisher
        self._dispatcher = dispatcher
        self._marks = marks
        self._kept = kept
        self._clock = clock
        self._interval = interval
        self._hold = hold

    async def run(self) -> None:
        """Sweep for ever; a failing database or broker only means a later sweep."""
        while True:
            try:
                claimed = await self.sweep()
            except Unavailable:
                log.warning("relay_sweep_failed")
                claimed = 0
            if claimed < _BATCH:
                await self._clock.sleep(self._interval)

    async def sweep(self) -> int:
        """Publish what is overdue; answers how many notifications that were."""
        now = self._clock.now()
        async with self._database.read() as connection:
            pending, oldest_s = await measure_outbox(connection, now=now)
        metrics.outbox_pending.set(pending)
        metrics.outbox_oldest_seconds.set(oldest_s)
        # Nothing is claimed while nothing could be published: rows would be held in vain.
        if not pending or not self._publisher.link.is_ready:
            return 0
        async with self._database.read() as connection:
            # Until what was claimed is published: two that publish at the same time would mix up what one sender sent.
            return await self._publish_overdue(now) if await try_lock(connection, _LOCK_NUMBER) else 0

    async def _publish_overdue(self, now: datetime) -> int:
        async with self._database.write() as connection:
            rows = await claim_for_relay(connection, now=now, hold=self._hold, limit=_BATCH)
        if rows:
            log.info("relay_took_over", notifications=len(rows))
            await self._hand_over([row for row in rows if row.routed_at is None], now)
            await self._dispatch_again([row for row in rows if row.routed_at is not None], now)
        return len(rows)

    async def _hand_over(self, rows: Sequence[AnyRow], now: datetime) -> None:
        messages = [make_intake_message(to_notification(row), now) for row in rows]
        outcomes = await self._publisher.publish_all(messages) if messages else []
        if returned := outcomes.count(Outcome.RETURNED):
            log.error("intake_unroutable", notifications=returned, action="check the bindings of the intake queues")

    async def _dispatch_again(self, rows: Sequence[AnyRow], now: datetime) -> None:
        for notification in (to_notification(row) for row in rows if not row.recipients["all"]):
            self._marks.add(await self._dispatch_items(notification, now))
        shared = [to_notification(row) for row in rows if row.recipients["all"]]
        if shared:
            async with self._database.read() as connection:
                entries = await self._kept.broadcasts(connection, shared)
            result = await self._dispatcher.dispatch([], entries)
            # Removed in between: nothing is left to dispatch.
            result.done |= {each.id for each in shared} - {entry.notification.id for entry in entries}
            self._marks.add(result)

    async def _dispatch_items(self, notification: Notification, now: datetime) -> Dispatched:
        total = Dispatched(done={notification.id})
        async with self._database.read() as connection:
            async for chunk in self._kept.items(connection, notification, now):
                if not chunk:
                    continue
                result = await self._dispatcher.dispatch(chunk)
                total.gone_queues |= result.gone_queues
                total.done &= result.done
        return total
