"""One message that no handler can take must not hold up those behind it (requirement I02)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Final

import structlog

from notification_service.broker.consumer import BatchHandler, Incoming
from notification_service.clock import Clock
from notification_service.errors import Unavailable

log = structlog.get_logger(__name__)

ATTEMPTS: Final = 3
"""How often a message is tried by itself, after its batch has failed, before it is given up."""

_PAUSE: Final = timedelta(milliseconds=500)

GiveUp = Callable[[Incoming, int, Exception], Awaitable[Awaitable[None]]]
"""Keeps a message that failed this many times, and why, as a dead letter; answers the rest, as a handler does."""


class Isolating:
    """A handler around another: a batch that fails is handled message by message, in order.

    `Unavailable` is nobody's fault: it is passed on, and the consumer asks again with the whole batch for as long as it
    takes. Any other error means that the code cannot deal with a message: that one is given up after `ATTEMPTS`, the
    others are handled. What was handled before is known by its id when it comes again.
    """

    def __init__(self, handle: BatchHandler, *, give_up: GiveUp, clock: Clock) -> None:
        self._handle = handle
        self._give_up = give_up
        self._clock = clock

    async def __call__(self, batch: Sequence[Incoming]) -> Awaitable[None]:
        """Handle a batch.

        Raises:
            Unavailable: Something needed does not answer. What is stored already is published all the same.
        """
        try:
            return await self._handle(batch)
        except Unavailable:
            raise
        except Exception as error:
            log.exception("batch_taken_apart", messages=len(batch), error=type(error).__name__)
        rests: list[Awaitable[None]] = []
        try:
            for message in batch:
                rests.append(await self._handle_alone(message))  # noqa: PERF401 - kept when a later one raises
        except Unavailable:
            await _finish(rests)
            raise
        return _finish(rests)

    async def _handle_alone(self, message: Incoming) -> Awaitable[None]:
        attempt = 1
        while True:
            try:
                return await self._handle([message])
            except Unavailable:
                raise
            except Exception as error:
                if attempt == ATTEMPTS:
                    log.exception("message_given_up", message_id=message.message_id, attempts=attempt)
                    return await self._give_up(message, attempt, error)
            attempt += 1
            await self._clock.sleep(_PAUSE)


async def _finish(rests: Sequence[Awaitable[None]]) -> None:
    for rest in rests:
        await rest
