"""Writing down what providers say later, and telling of it: receipts, dead letters, the next channel."""

from __future__ import annotations

import structlog

from notification_service.broker.publisher import Publisher
from notification_service.channels.interface import Report
from notification_service.channels.load import load_deliveries
from notification_service.channels.planned import Reach
from notification_service.channels.queueing import Queueing
from notification_service.channels.receipts import Receipts, receipts_of
from notification_service.channels.record import record_report
from notification_service.clock import Clock
from notification_service.contacts.secrets import SecretBox
from notification_service.db.engine import Database
from notification_service.dead_letters.announce import announce_dead_letters

log = structlog.get_logger(__name__)


class Reporting:
    """`channels.report_endpoints.OnReport`."""

    def __init__(
        self,
        *,
        database: Database,
        publisher: Publisher,
        queueing: Queueing,
        receipts: Receipts,
        box: SecretBox,
        clock: Clock,
        reach: Reach,
    ) -> None:
        self._database = database
        self._publisher = publisher
        self._queueing = queueing
        self._receipts = receipts
        self._box = box
        self._clock = clock
        self._reach = reach

    async def __call__(self, channel: str, report: Report) -> None:
        """Write one down."""
        now = self._clock.now()
        async with self._database.write() as connection:
            loaded = await load_deliveries(connection, {(report.user_id, report.delivery_id)}, self._box)
            found = loaded.get(report.delivery_id)
            if found is None or found.delivery.channel != channel:
                log.info("report_of_nothing", channel=channel, delivery_id=str(report.delivery_id))
                return
            recorded = await record_report(connection, found, report, now=now, reach=self._reach)
        self._receipts.start()
        self._receipts.add(receipts_of(recorded.applied, now))
        if recorded.kept:
            await self._queueing.publish(recorded.kept)
        if recorded.letters:
            letters, ids = zip(*recorded.letters, strict=True)
            await announce_dead_letters(self._publisher, letters, ids)
