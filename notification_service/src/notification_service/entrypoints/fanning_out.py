"""Large audiences, piece by piece: each piece is one short transaction, and senders take turns, so that neither the
intake nor another sender waits for them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.channels.planned import KeptDelivery
from notification_service.clock import Clock
from notification_service.db.engine import Database
from notification_service.dispatch.dispatcher import Dispatched, Dispatcher
from notification_service.dispatch.marks import DispatchMarks
from notification_service.entrypoints.deciding import Addressed, Deciding, Routed
from notification_service.errors import Unavailable
from notification_service.event_types.catalog import Catalog
from notification_service.event_types.entity import PLAIN_MESSAGE
from notification_service.identity.repository import read_audience
from notification_service.notifications.decisions import read_records
from notification_service.notifications.entity import Notification
from notification_service.notifications.fanouts import advance, claim_next, finish
from notification_service.notifications.models import notifications
from notification_service.notifications.repository import mark_dispatched, to_notification
from shared_contracts.requests import Channel

log = structlog.get_logger(__name__)

PIECE: Final = 125
"""Recipients of one transaction: it takes worker and database 15 ms each, and so long a private message may wait."""

_IDLE: Final = timedelta(milliseconds=250)
# Between two pieces; twice as long as the piece took, or longer: two thirds of the time are others'.
_PAUSE: Final = 2
_SHORTEST_PAUSE: Final = timedelta(milliseconds=10)

PublishDeliveries = Callable[[Sequence[KeptDelivery]], Awaitable[None]]


class FanningOut:
    """The loop; several processes may run it."""

    def __init__(
        self,
        *,
        database: Database,
        catalog: Catalog,
        deciding: Deciding,
        dispatcher: Dispatcher,
        marks: DispatchMarks,
        publish_deliveries: PublishDeliveries,
        clock: Clock,
    ) -> None:
        self._database = database
        self._catalog = catalog
        self._deciding = deciding
        self._dispatcher = dispatcher
        self._marks = marks
        self._publish_deliveries = publish_deliveries
        self._clock = clock

    async def run(self) -> None:
        """Serve for ever."""
        while True:
            began = self._clock.monotonic()
            try:
                has_served = await self.serve_piece()
            except Unavailable:
                log.warning("fanout_waits")
                has_served = False
            took = timedelta(seconds=self._clock.monotonic() - began)
            await self._clock.sleep(max(_PAUSE * took, _SHORTEST_PAUSE) if has_served else _IDLE)

    async def serve_piece(self) -> bool:
        """Serve whose turn it is; answers whether there was anybody."""
        async with self._database.read() as connection:
            if await claim_next(connection) is None:
                return False
        now = self._clock.now()
        routed: Routed | None = None
        async with self._database.write() as connection:
            job = await claim_next(connection)
            if job is None:
                return False
            notification = await _find(connection, job.notification_id)
            people = (
                await read_audience(
                    connection, notification.tenant, notification.recipients, after=job.after, limit=PIECE
                )
                if notification is not None
                else []
            )
            if notification is None or not people:
                await finish(connection, job.notification_id)
                await mark_dispatched(connection, [job.notification_id], now=now)
                return True
            catalogs = await self._catalog.load(connection, {notification.tenant})
            type_ = catalogs[notification.tenant].types.get(notification.event_type, PLAIN_MESSAGE)
            records = await read_records(connection, notification.id)
            routed = await self._deciding.route(
                connection, [Addressed(notification, type_, people, records)], catalogs, now
            )
            await advance(connection, notification.id, after=people[-1].id, now=now)
        await self._publish(routed)
        return True

    async def _publish(self, routed: Routed) -> None:
        gone = await self._dispatcher.dispatch_frames(routed.frames)
        result = await self._dispatcher.dispatch(routed.kept)
        # What was not confirmed is found by the gateways, as a hole in the numbers.
        self._marks.add(Dispatched(gone_queues=result.gone_queues | gone))
        await self._publish_deliveries(routed.deliveries)


async def _find(connection: AsyncConnection, notification_id: UUID) -> Notification | None:
    row = (
        await connection.execute(
            select(notifications).where(notifications.c.id == notification_id, notifications.c.recalled_at.is_(None))
        )
    ).one_or_none()
    if row is None:
        return None
    found = to_notification(row)
    if found.is_broadcast and found.channels is not None:
        # Its in-app part is one row for everybody, and done.
        others = tuple(channel for channel in found.channels if channel is not Channel.IN_APP)
        return replace(found, channels=others)
    return found
