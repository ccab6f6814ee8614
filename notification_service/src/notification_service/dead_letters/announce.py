"""Telling other programs of dead letters: the same message, with its reason, in the queue `notifications.dead`."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from notification_service import metrics
from notification_service.broker.publisher import Outcome, Outgoing, Publisher
from notification_service.dead_letters.repository import MAX_PAYLOAD_BYTES, DeadLetter
from shared_contracts.topology import DEAD


async def announce_dead_letters(publisher: Publisher, letters: Sequence[DeadLetter], ids: Sequence[UUID]) -> None:
    """Publish stored dead letters. The table is what counts: a copy that is not confirmed is not tried again.

    When the queue is missing it is made again, with whatever else of the topology was deleted.
    """
    for each in letters:
        metrics.dead_letters.labels(each.reason).inc()
    copies = [_make_copy(each, letter_id) for each, letter_id in zip(letters, ids, strict=True)]
    outcomes = await publisher.publish_all(copies)
    returned = [copy for copy, outcome in zip(copies, outcomes, strict=True) if outcome is Outcome.RETURNED]
    if returned and await publisher.declare_again():
        await publisher.publish_all(returned)


def _make_copy(letter: DeadLetter, letter_id: UUID) -> Outgoing:
    return Outgoing(
        exchange="",
        routing_key=DEAD.name,
        body=letter.payload[:MAX_PAYLOAD_BYTES],
        message_id=str(letter_id),
        type="dead_letter",
        headers={
            "x-herald-reason": str(letter.reason),
            "x-herald-detail": letter.detail[:500],
            "x-herald-exchange": letter.exchange,
            "x-herald-routing-key": letter.routing_key,
            "x-herald-message-id": letter.message_id or "",
        },
    )
