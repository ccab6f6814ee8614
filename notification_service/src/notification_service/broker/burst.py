"""Publishes that are written together and confirmed together: one wait for all, in place of a future for each.

aiormq keeps a future for every publish, and a task to wait for it. What it asks of them is little; `_Confirmation` is
that little, and counts down its burst (docs/decisions/0071).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, cast

from aiormq import spec
from aiormq.abc import ChannelFrame
from aiormq.channel import Channel
from aiormq.exceptions import PublishError

from notification_service.broker.encode import encode_publish

if TYPE_CHECKING:
    from notification_service.broker.publisher import Outgoing


class Outcome(StrEnum):
    """What became of one publish."""

    OK = "ok"
    NACK = "nack"
    RETURNED = "returned"
    TIMEOUT = "timeout"
    """Not confirmed: the broker may or may not have it. Publish again with the same identity."""


class Burst:
    """Messages on their way.

    Attributes:
        outcomes: In the order of the messages; `TIMEOUT` until something else is known.
        done: Has a result when the outcome of every message is known, or will never be.
    """

    __slots__ = ("_left", "done", "outcomes")

    def __init__(self, count: int) -> None:
        self.outcomes = [Outcome.TIMEOUT] * count
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._left = count

    def settle(self, index: int, outcome: Outcome) -> None:
        """The outcome of one message is known."""
        self.outcomes[index] = outcome
        self._left -= 1
        if not self._left:
            self.give_up()

    def give_up(self) -> None:
        """Wait no longer: the connection is gone, or everything is known."""
        if not self.done.done():
            self.done.set_result(None)

    async def write(self, channel: Channel, messages: Sequence[Outgoing]) -> None:
        """Write all messages as one piece.

        Raises:
            ValueError: A name is longer than AMQP takes. Nothing was written.
            AMQPError: The channel is closed. Nothing was written.
        """
        pieces = [
            encode_publish(each, channel=channel.number, max_body_bytes=channel.max_content_size) for each in messages
        ]
        async with channel.lock:
            first = channel.delivery_tag + 1
            for index, message in enumerate(messages):
                channel.confirmations[first + index] = cast("Any", _Confirmation(self, index))
                channel.message_id_delivery_tag[message.message_id] = first + index
            channel.delivery_tag += len(messages)
            try:
                await channel.write_queue.put(ChannelFrame(payload=b"".join(pieces), should_close=False))
            except BaseException:
                # The broker has not seen them: the next publish takes their numbers.
                channel.delivery_tag = first - 1
                for tag in range(first, first + len(messages)):
                    channel.confirmations.pop(tag, None)
                self.forget(channel, messages)
                raise

    @staticmethod
    def forget(channel: Channel, messages: Sequence[Outgoing]) -> None:
        """What comes back from now on is not told apart by message id any more."""
        for message in messages:
            channel.message_id_delivery_tag.pop(message.message_id, None)


class _Confirmation:
    """What aiormq uses of a future, for one message of a burst."""

    __slots__ = ("_burst", "_index", "_is_done")

    def __init__(self, burst: Burst, index: int) -> None:
        self._burst = burst
        self._index = index
        self._is_done = False

    def done(self) -> bool:
        return self._is_done

    def cancelled(self) -> bool:
        # Nobody waits any more: an answer that comes late is not worth a warning.
        return self._burst.done.done()

    def set_result(self, frame: object) -> None:
        self._settle(Outcome.OK if isinstance(frame, spec.Basic.Ack) else Outcome.NACK)

    def set_exception(self, error: Exception) -> None:
        self._settle(Outcome.RETURNED if isinstance(error, PublishError) else Outcome.NACK)

    def _settle(self, outcome: Outcome) -> None:
        if not self._is_done:
            self._is_done = True
            self._burst.settle(self._index, outcome)
