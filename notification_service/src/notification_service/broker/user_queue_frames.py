"""What is asked of RabbitMQ for many users at once: written as one piece, with one answer for all.

RabbitMQ works off a channel in order, so the answer to a question at the end says that everything before it is done; a
refusal closes the channel, whatever it was for. The frames of two users differ by their ids alone, which are equally
long: the library writes those of nobody once for each channel, and ids are put in their place (3 in place of 23 µs for
each user; docs/decisions/0082).
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from functools import lru_cache
from typing import Final
from uuid import UUID

from aiormq import spec
from aiormq.abc import ChannelFrame
from aiormq.channel import Channel
from pamqp.base import Frame

from notification_service.broker.consumer import never_called
from shared_contracts.topology import DELIVERY_DIRECT, user_queue

_NOBODY: Final = UUID(int=0)
_LAST_TURN: Final = 0xFFFF_FFFF
_KEPT: Final = 64
"""Channels whose frames are remembered; a process has eight at a time, whose numbers are used again."""


def make_consumer_tag(user_id: UUID, turn: int) -> str:
    """A tag that says whose queue it is; as long as every other.

    Args:
        user_id: The queue's user.
        turn: Tells consumers of one user that follow each other apart.
    """
    return f"{user_id}.{turn & _LAST_TURN:08x}"


def read_consumer_tag(tag: str) -> UUID:
    """Whose queue a consumer is of.

    Raises:
        ValueError: `make_consumer_tag` did not make it.
    """
    return UUID(tag.partition(".")[0])


async def declare_user_queues(channel: Channel, user_ids: Sequence[UUID], *, bound: Container[UUID] = ()) -> None:
    """Declare these users' durable queues and bind them; harmless when they exist.

    Args:
        channel: One that consumes nothing.
        user_ids: Each once.
        bound: Of these only the queue is looked for. A missing one is refused, with everything else.
    """
    all_of_it, queue_only = _declaring(channel.number), _looking(channel.number)
    pieces = [(queue_only if each in bound else all_of_it).replace(_ID, str(each).encode()) for each in user_ids]
    await _ask(channel, pieces, prefetch_count=1)


async def consume_user_queues(channel: Channel, tags: Sequence[str], *, prefetch_count: int) -> None:
    """Begin to consume the queues that these tags (`make_consumer_tag`) stand for; they must exist.

    Args:
        channel: A tapped one.
        tags: Each once, and new to the channel.
        prefetch_count: Messages not yet settled, at most, for each consumer.
    """
    pattern = _consuming(channel.number)
    # So that the library knows what the broker may cancel; RabbitMQ wants that answered from 4.3 on.
    channel.consumers.update(dict.fromkeys(tags, never_called))
    pieces = [pattern.replace(_TAG, tag.encode()).replace(_ID, tag.partition(".")[0].encode()) for tag in tags]
    await _ask(channel, pieces, prefetch_count=prefetch_count)


async def _ask(channel: Channel, pieces: Iterable[bytes], *, prefetch_count: int) -> None:
    await channel.write_queue.put(ChannelFrame(payload=b"".join(pieces), should_close=False))
    await channel.basic_qos(prefetch_count=prefetch_count)


_ID: Final = str(_NOBODY).encode()
_TAG: Final = make_consumer_tag(_NOBODY, 0).encode()


@lru_cache(maxsize=_KEPT)
def _declaring(channel_number: int) -> bytes:
    queue = user_queue(_NOBODY)
    return _marshal(
        channel_number,
        spec.Queue.Declare(queue=queue.name, durable=True, nowait=True, arguments=dict(queue.arguments)),
        spec.Queue.Bind(queue=queue.name, exchange=DELIVERY_DIRECT.name, routing_key=queue.name, nowait=True),
    )


@lru_cache(maxsize=_KEPT)
def _looking(channel_number: int) -> bytes:
    return _marshal(channel_number, spec.Queue.Declare(queue=user_queue(_NOBODY).name, passive=True, nowait=True))


@lru_cache(maxsize=_KEPT)
def _consuming(channel_number: int) -> bytes:
    queue = user_queue(_NOBODY)
    return _marshal(channel_number, spec.Basic.Consume(queue=queue.name, consumer_tag=_TAG.decode(), nowait=True))


def _marshal(channel_number: int, *frames: Frame) -> bytes:
    return ChannelFrame.marshall(channel_number=channel_number, frames=list(frames)).payload
