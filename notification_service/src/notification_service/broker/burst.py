"""Publishes that are written together and confirmed together: one wait for all, in place of a future for each.

The numbers of a channel's publishes, and what the broker answers to them, are kept here and not by the library, which
keeps a future for every publish and a task to wait for it (docs/decisions/0071).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

from aiormq.abc import ChannelFrame
from aiormq.channel import Channel
from typing_extensions import override

from notification_service.broker.deliveries import Incoming, TapBase
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
        """The outcome of one message is known. The first word counts: a returned message is confirmed afterwards."""
        if self.outcomes[index] is not Outcome.TIMEOUT or self.done.done():
            return
        self.outcomes[index] = outcome
        self._left -= 1
        if not self._left:
            self.give_up()

    def give_up(self) -> None:
        """Wait no longer: the connection is gone, or everything is known."""
        if not self.done.done():
            self.done.set_result(None)


class Confirms(TapBase):
    """The publishes of one channel that the broker has not answered yet."""

    def __init__(self) -> None:
        self._last_tag = 0
        # All tags below are answered.
        self._lowest = 1
        self._waiting: dict[int, tuple[Burst, int]] = {}
        # By message id: a returned message does not say its number.
        self._returnable: dict[str, tuple[Burst, int]] = {}

    async def write(self, channel: Channel, burst: Burst, messages: Sequence[Outgoing]) -> None:
        """Write all messages as one piece.

        Raises:
            ValueError: A name is longer than AMQP takes. Nothing was written.
            AMQPError: The channel is closed. Nothing was written.
        """
        number, longest = channel.number, channel.max_content_size
        payload = b"".join([encode_publish(each, channel=number, max_body_bytes=longest) for each in messages])
        async with channel.lock:
            first = self._last_tag + 1
            self._last_tag += len(messages)
            for index, message in enumerate(messages):
                self._waiting[first + index] = entry = burst, index
                if message.mandatory:
                    self._returnable[message.message_id] = entry
            try:
                await channel.write_queue.put(ChannelFrame(payload=payload, should_close=False))
            except BaseException:
                # The broker has not seen them: the next publish takes their numbers.
                self._last_tag = first - 1
                for tag in range(first, first + len(messages)):
                    self._waiting.pop(tag, None)
                raise

    def forget(self, messages: Sequence[Outgoing]) -> None:
        """What comes back from now on is nobody's any more."""
        for message in messages:
            self._returnable.pop(message.message_id, None)

    @override
    def on_return(self, message: Incoming) -> None:
        if (entry := self._returnable.pop(message.message_id or "", None)) is not None:
            burst, index = entry
            burst.settle(index, Outcome.RETURNED)

    @override
    def on_confirm(self, tag: int, *, is_multiple: bool, is_ack: bool) -> None:
        outcome = Outcome.OK if is_ack else Outcome.NACK
        waiting = self._waiting
        for each in range(self._lowest, tag + 1) if is_multiple else (tag,):
            if (entry := waiting.pop(each, None)) is not None:
                burst, index = entry
                burst.settle(index, outcome)
        if is_multiple:
            self._lowest = max(self._lowest, tag + 1)
