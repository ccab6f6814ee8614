"""Receipts on `notifications.events`: a backend follows its own notifications there, many receipts in one message.

They tell what the tables say, soon after; the tables are the truth. A receipt that RabbitMQ does not take is dropped
and counted: `GET /deliveries` has it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import orjson
import structlog

from notification_service import metrics
from notification_service.background import end_tasks, keep_running
from notification_service.broker.publisher import Outcome as Published
from notification_service.broker.publisher import Outgoing, Publisher
from notification_service.channels.outcome import Outcome
from notification_service.clock import Clock, format_time
from shared_contracts.delivery_state import DeliveryState
from shared_contracts.error_codes import Reason
from shared_contracts.topology import NOTIFICATIONS_EVENTS, RECEIPT_KEYS

log = structlog.get_logger(__name__)

MAX_ITEMS: Final = 500
"""Receipts in one message."""

_PAUSE: Final = timedelta(milliseconds=100)
_RETRY_PAUSE: Final = timedelta(seconds=1)
_MAX_WAITING: Final = 50_000
_attempts = itertools.count()
_KEYS_OF: Final = {
    DeliveryState.SENT: ("delivered",),
    DeliveryState.DELIVERED: ("delivered",),
    DeliveryState.FAILED: ("failed", "dead_lettered"),
    DeliveryState.EXPIRED: ("failed",),
}


@dataclass(frozen=True, slots=True)
class Receipt:
    """Something that happened to a notification.

    Attributes:
        key: One of `accepted, delivered, acked, read, failed, dead_lettered`.
        notification_id: The sender's `message_id`, when it gave one.
        status: Of the delivery: with `delivered`, `sent` means that the provider took it and tells no more.
    """

    key: str
    notification_id: UUID
    at: datetime
    tenant: str
    user_id: UUID | None = None
    channel: str | None = None
    delivery_id: UUID | None = None
    status: str | None = None
    reason: Reason | str | None = None

    def describe(self) -> dict[str, Any]:
        """As it is published; ids are left to the encoder, which spells them ten times as fast."""
        return {
            "message_id": self.notification_id,
            "notification_id": self.notification_id,
            "tenant": self.tenant,
            "user_id": self.user_id,
            "channel": self.channel,
            "delivery_id": self.delivery_id,
            "status": self.status,
            "reason": str(self.reason) if self.reason else None,
            "at": format_time(self.at),
        }


class Receipts:
    """Collects receipts and publishes them together."""

    def __init__(self, publisher: Publisher, clock: Clock) -> None:
        self._publisher = publisher
        self._clock = clock
        self._waiting: deque[Receipt] = deque()
        self._has_work = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to publish; harmless when it has begun."""
        if self._task is not None:
            return
        self._task = keep_running(self._run, name="receipts")

    def add(self, receipts: Sequence[Receipt]) -> None:
        """Publish these within a moment."""
        room = _MAX_WAITING - len(self._waiting)
        if len(receipts) > room:
            metrics.receipts_dropped.inc(len(receipts) - max(room, 0))
        self._waiting.extend(receipts[: max(room, 0)])
        if self._waiting:
            self._has_work.set()

    async def stop(self) -> None:
        """Publish what is left and end."""
        if self._task is None:
            return
        await end_tasks(self._task)
        self._task = None
        await self._publish_some()

    async def _run(self) -> None:
        while True:
            await self._has_work.wait()
            await self._clock.sleep(_PAUSE)
            if not await self._publish_some():
                await self._clock.sleep(_RETRY_PAUSE)

    async def _publish_some(self) -> bool:
        taken = list(itertools.islice(self._waiting, 20 * MAX_ITEMS))
        if not taken or not self._publisher.link.is_ready:
            return not taken
        chunks = [
            (key, chunk) for key in RECEIPT_KEYS for chunk in _chunks([each for each in taken if each.key == key])
        ]
        outcomes = await self._publisher.publish_all([_make_message(key, chunk) for key, chunk in chunks])
        for _ in taken:
            self._waiting.popleft()
        for (_, chunk), outcome in zip(chunks, outcomes, strict=True):
            if outcome is not Published.OK:
                metrics.receipts_dropped.inc(len(chunk))
        if not self._waiting:
            self._has_work.clear()
        return True


def receipts_of(outcomes: Sequence[Outcome], now: datetime) -> list[Receipt]:
    """What outcomes that were written down are told as."""
    told = []
    for each in outcomes:
        delivery = each.loaded.delivery
        told += [
            Receipt(
                key=key,
                notification_id=delivery.notification_id,
                at=now,
                tenant=delivery.tenant,
                user_id=delivery.user_id,
                channel=delivery.channel,
                delivery_id=delivery.id,
                status=str(each.status),
                reason=each.reason,
            )
            for key in _KEYS_OF.get(each.status, ())
        ]
    return told


def _chunks(receipts: list[Receipt]) -> list[list[Receipt]]:
    return [receipts[start : start + MAX_ITEMS] for start in range(0, len(receipts), MAX_ITEMS)]


def _make_message(key: str, receipts: Sequence[Receipt]) -> Outgoing:
    body = {"version": 1, "type": key, "items": [each.describe() for each in receipts]}
    return Outgoing(
        exchange=NOTIFICATIONS_EVENTS.name,
        routing_key=key,
        # Ids that come from PostgreSQL's driver are of a kind of their own, which the encoder leaves to `str`.
        body=orjson.dumps(body, default=str),
        message_id=f"receipt.{next(_attempts)}",
        type="receipts",
        # Nobody needs to listen.
        mandatory=False,
    )
