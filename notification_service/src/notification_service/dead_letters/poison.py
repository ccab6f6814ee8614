"""Messages nobody could take, kept as dead letters: given up by RabbitMQ, after as many returns as the delivery limit
allows, or by a worker whose handler failed on them each time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence

from notification_service.broker.consumer import Incoming
from notification_service.broker.publisher import Publisher
from notification_service.clock import Clock
from notification_service.db.engine import Database
from notification_service.dead_letters.announce import announce_dead_letters
from notification_service.dead_letters.repository import DeadLetter, insert_dead_letters
from shared_contracts.error_codes import Reason
from shared_contracts.topology import DELIVERY_LIMIT


class PoisonHandler:
    """Handler of the queue the intake's queues dead-letter to, and of what the intake's own handler cannot take."""

    def __init__(self, database: Database, publisher: Publisher, clock: Clock) -> None:
        self._database = database
        self._publisher = publisher
        self._clock = clock

    async def __call__(self, batch: Sequence[Incoming]) -> Awaitable[None]:
        """Store a batch."""
        return await self._keep([_make_letter(message) for message in batch])

    async def give_up(self, message: Incoming, attempts: int, error: Exception) -> Awaitable[None]:
        """Store a message a handler failed on, with the kind of the error; the log has the rest."""
        letter = DeadLetter(
            reason=Reason.ATTEMPTS_EXHAUSTED,
            detail=f"the worker failed on it {attempts} times ({type(error).__name__}); its log says why",
            payload=message.body,
            exchange=message.exchange,
            routing_key=message.routing_key,
            message_id=message.message_id,
            source=message.app_id,
            attempts=attempts,
        )
        return await self._keep([letter])

    async def _keep(self, letters: Sequence[DeadLetter]) -> Awaitable[None]:
        async with self._database.write() as connection:
            ids = await insert_dead_letters(connection, letters, now=self._clock.now())
        return announce_dead_letters(self._publisher, letters, ids)


def _make_letter(message: Incoming) -> DeadLetter:
    # Where it came from first: RabbitMQ keeps that in the `x-death` table it writes itself.
    deaths = message.headers.get("x-death")
    first = deaths[-1] if isinstance(deaths, list) and deaths and isinstance(deaths[-1], dict) else {}
    keys = first.get("routing-keys")
    return DeadLetter(
        reason=Reason.ATTEMPTS_EXHAUSTED,
        detail="every worker that took this message died or gave it back",
        payload=message.body,
        exchange=str(first.get("exchange", "")),
        routing_key=str(keys[0]) if isinstance(keys, list) and keys else "",
        message_id=message.message_id,
        source=message.app_id,
        attempts=DELIVERY_LIMIT,
    )
