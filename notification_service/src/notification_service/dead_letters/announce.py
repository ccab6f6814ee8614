"""Telling other programs of dead letters: the same message, with its reason, in the queue `notifications.dead`."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from notification_service import metrics
from notification_service.broker.publisher import Outgoing, Publisher
from notification_service.dead_letters.repository import MAX_PAYLOAD_BYTES, DeadLetter
from shared_contracts.topology import DEAD


async def announce_dead_letters(publisher: Publisher, letters: Sequence[DeadLetter], ids: Sequence[UUID]) -> None:
    """Publish stored dead letters. The table is what counts: a copy that is not confirmed is not tried again."""
    for each in letters:
        metrics.dead_letters.labels(each.reason).inc()
    await publisher.publish_all(
        [
            Outgoing(
                exchange="",
                routing_key=DEAD.name,
                body=each.payload[:MAX_PAYLOAD_BYTES],
                message_id=str(letter_id),
                type="dead_letter",
                headers={
                    "x-herald-reason": str(each.reason),
                    "x-herald-detail": each.detail[:500],
                    "x-herald-exchange": each.exchange,
                    "x-herald-routing-key": each.routing_key,
                    "x-herald-message-id": each.message_id or "",
                },
            )
            for each, letter_id in zip(letters, ids, strict=True)
        ]
    )
