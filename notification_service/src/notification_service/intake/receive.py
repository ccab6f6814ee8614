"""One batch from RabbitMQ: every message ends as stored, as known already, or as a dead letter, and is then settled."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from notification_service.broker.consumer import Incoming
from notification_service.dead_letters.repository import DeadLetter
from notification_service.intake.check import CheckedRequest, Refused, check_message


class Arrival:
    """A checked request together with the message it came as, for the case that it becomes a dead letter later.

    `was_accepted` is found out later: whether it was stored before, by the REST API.
    """

    __slots__ = ("checked", "message", "was_accepted")

    def __init__(self, checked: CheckedRequest, message: Incoming) -> None:
        self.checked, self.message = checked, message
        self.was_accepted = False


HandleArrivals = Callable[[Sequence[Arrival], Sequence[DeadLetter]], Awaitable[Awaitable[None]]]
"""Stores what arrived and what was refused in one transaction; answers the rest, which publishes what was stored.
Raising means: nothing was stored, try again."""


class Receiver:
    """Handler of the intake queues."""

    def __init__(self, handle: HandleArrivals) -> None:
        self._handle = handle

    async def __call__(self, batch: Sequence[Incoming]) -> Awaitable[None]:
        """Check and store one batch."""
        arrivals, letters = [], []
        for message in batch:
            checked = check_message(
                body=message.body,
                exchange=message.exchange,
                routing_key=message.routing_key,
                message_id=message.message_id,
                app_id=message.app_id,
                message_headers=message.headers,
            )
            if isinstance(checked, Refused):
                letters.append(make_dead_letter(message, checked))
            else:
                arrivals.append(Arrival(checked, message))
        return await self._handle(arrivals, letters)


def make_dead_letter(message: Incoming, refused: Refused, *, tenant: str | None = None) -> DeadLetter:
    """The dead letter of a message that cannot be taken."""
    return DeadLetter(
        reason=refused.reason,
        detail=refused.detail,
        payload=message.body,
        exchange=message.exchange,
        routing_key=message.routing_key,
        message_id=message.message_id,
        source=message.app_id,
        tenant=tenant,
    )
