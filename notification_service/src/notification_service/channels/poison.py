"""Deliveries RabbitMQ itself gave up: every worker that took one died (requirement I03). They end as failed."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from uuid import UUID

import orjson

from notification_service.broker.consumer import Incoming
from notification_service.broker.publisher import Publisher
from notification_service.channels.load import load_deliveries
from notification_service.channels.outcome import Outcome
from notification_service.channels.planned import Reach
from notification_service.channels.receipts import Receipts, receipts_of
from notification_service.channels.record import record_outcomes
from notification_service.clock import Clock
from notification_service.contacts.secrets import SecretBox
from notification_service.db.engine import Database
from notification_service.dead_letters.announce import announce_dead_letters
from shared_contracts.delivery_state import DeliveryState
from shared_contracts.error_codes import Reason

_DETAIL = "every worker that took this delivery died or gave it back"


class DeliveryPoisonHandler:
    """Handler of the queue the work queues dead-letter to."""

    def __init__(
        self,
        database: Database,
        publisher: Publisher,
        clock: Clock,
        *,
        box: SecretBox,
        reach: Reach,
        receipts: Receipts,
    ) -> None:
        self._database = database
        self._publisher = publisher
        self._clock = clock
        self._box = box
        self._reach = reach
        self._receipts = receipts

    async def __call__(self, batch: Sequence[Incoming]) -> Awaitable[None]:
        """End a batch."""
        keys = {key for message in batch if (key := _read(message)) is not None}
        now = self._clock.now()
        async with self._database.write() as connection:
            loaded = await load_deliveries(connection, keys, self._box) if keys else {}
            outcomes = [
                Outcome(
                    each,
                    DeliveryState.FAILED,
                    attempt=each.delivery.attempts,
                    reason=Reason.ATTEMPTS_EXHAUSTED,
                    error=_DETAIL,
                )
                for each in loaded.values()
            ]
            if not outcomes:
                return _nothing()
            recorded = await record_outcomes(connection, outcomes, now=now, reach=self._reach)
        self._receipts.add(receipts_of(recorded.applied, now))
        if not recorded.letters:
            return _nothing()
        letters, ids = zip(*recorded.letters, strict=True)
        return announce_dead_letters(self._publisher, letters, ids)


def _read(message: Incoming) -> tuple[UUID, UUID] | None:
    try:
        body = orjson.loads(message.body)
        return UUID(body["user_id"]), UUID(body["delivery_id"])
    except (ValueError, KeyError, TypeError):
        return None


async def _nothing() -> None:
    return None
