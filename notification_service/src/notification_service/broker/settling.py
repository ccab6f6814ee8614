"""Settling deliveries: many with one write, and with as few acknowledgements as their order allows."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from struct import Struct

from aiormq.abc import ChannelFrame
from aiormq.channel import Channel

from notification_service.broker.link import BROKER_ERRORS

# Frame, Basic.Ack or Basic.Nack, tag, one octet of flags (AMQP 0-9-1, sections 2.3.5 and 1.8.3.13).
_settling = Struct(">BHIIQBB").pack
_ACK, _NACK, _MULTIPLE, _REQUEUE = 0x003C0050, 0x003C0078, 1, 2


class Settled:
    """What of one channel is done, and how the broker is told (docs/decisions/0075, 0085).

    A channel numbers its deliveries without gaps, whatever consumer they are for. What comes after one that is not done
    cannot go together, and is told by itself.
    """

    def __init__(self) -> None:
        self._done: set[int] = set()
        self._untold: list[int] = []
        # Everything below is done.
        self._lowest = 1

    def add(self, tags: Sequence[int]) -> None:
        """These are done."""
        # The broker closes a channel that names a tag twice.
        fresh = [tag for tag in tags if tag >= self._lowest and tag not in self._done]
        self._done.update(fresh)
        self._untold += fresh

    def pass_over(self, tags: Sequence[int]) -> None:
        """These were given back, by what is written to the channel already."""
        self._done.update(tag for tag in tags if tag >= self._lowest)

    def take(self) -> tuple[int | None, list[int]]:
        """What is to be told: a tag that stands for all up to it, and single tags that are ahead of others."""
        while self._lowest in self._done:
            self._done.discard(self._lowest)
            self._lowest += 1
        untold, self._untold = self._untold, []
        last = max((tag for tag in untold if tag < self._lowest), default=None)
        return last, sorted(tag for tag in untold if tag >= self._lowest)

    async def write(self, channel: Channel) -> None:
        """Tell the broker. One call at a time: it wants what is taken first to be written first."""
        last, ahead = self.take()
        together = [] if last is None else _encode(channel, [last], _ACK, _MULTIPLE)
        await _write(channel, together + _encode(channel, ahead, _ACK, 0))


async def acknowledge(channel: Channel, delivery_tags: Sequence[int]) -> None:
    """Send many acknowledgements as one write. On a lost channel they are void: the messages come again."""
    await _write(channel, _encode(channel, delivery_tags, _ACK, 0))


async def give_back(channel: Channel, delivery_tags: Sequence[int]) -> None:
    """Return messages to their queues, to be delivered again, as one write."""
    await _write(channel, _encode(channel, delivery_tags, _NACK, _REQUEUE))


def _encode(channel: Channel, delivery_tags: Sequence[int], method: int, flags: int) -> list[bytes]:
    number = channel.number
    return [_settling(1, number, 13, method, tag, flags, 0xCE) for tag in delivery_tags]


async def _write(channel: Channel, frames: Sequence[bytes]) -> None:
    if frames and not channel.is_closed:
        with contextlib.suppress(*BROKER_ERRORS):
            await channel.write_queue.put(ChannelFrame(payload=b"".join(frames), should_close=False))
