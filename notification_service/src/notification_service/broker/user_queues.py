"""Consuming the queues of many users over a few channels; what is lost with a channel is consumed again."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol
from uuid import UUID

import structlog
from aiormq import spec
from aiormq.channel import Channel
from aiormq.connection import Connection
from typing_extensions import override

from notification_service.background import spawn
from notification_service.batching import Batcher
from notification_service.broker.bound_queues import BoundQueues
from notification_service.broker.declare import declare_topology
from notification_service.broker.deliveries import Incoming, TapBase
from notification_service.broker.link import BROKER_ERRORS, BrokerLink, open_channel
from notification_service.broker.settling import Settled, give_back
from notification_service.broker.user_queue_frames import (
    consume_user_queues,
    declare_user_queues,
    make_consumer_tag,
    read_consumer_tag,
)
from notification_service.clock import Clock
from notification_service.errors import Unavailable
from shared_contracts import headers

log = structlog.get_logger(__name__)

# Single digits, as RabbitMQ's makers advise: an error closes a channel, and everybody's consumers on it start again.
_CONSUME_CHANNELS: Final = 4
_DECLARE_CHANNELS: Final = 4
# Answered together: a thousand users who come together cost twenty round trips instead of three thousand.
_BATCH: Final = 100
_RPC_LIMIT_S: Final = 10.0
_TURN_LIMIT_S: Final = 20.0
"""Longest wait of somebody who connects behind others; a thousand a second are served on one core."""


class Receipt(NamedTuple):
    """A delivery tag and the channel it belongs to."""

    channel: Channel
    tag: int


class QueuedFrame(NamedTuple):
    """One frame from a user's queue.

    Attributes:
        seq: Its number in the user's stream; None on a message that is not Herald's.
        is_live: A live event: no number, not to be kept.
        message_id: As published.
        receipt: What `settle` and `give_back` want; void once the channel is lost.
    """

    seq: int | None
    type: str | None
    body: bytes
    is_redelivered: bool
    receipt: Receipt
    is_live: bool = False
    message_id: str | None = None


class UserQueueListener(Protocol):
    """Who is told what happens to the queues. Called on the event loop; must not block."""

    def on_frame(self, user_id: UUID, frame: QueuedFrame) -> None:
        """A frame arrived."""

    def on_consumer_lost(self, user_id: UUID) -> None:
        """The user's consumer is gone (connection or channel lost, queue deleted); receipts are void."""


class _Place(NamedTuple):
    """One of the consuming channels, and a lock to wait for one's turn on it."""

    channel: Channel
    turn: asyncio.Lock


@dataclass(slots=True)
class _Consumer:
    user_id: UUID
    tag: str
    # None until it is asked for.
    place: _Place | None = None


class _ChannelTap(TapBase):
    """What arrives on one of the consuming channels."""

    def __init__(self, owner: UserQueues) -> None:
        self._owner = owner
        self.channel: Channel | None = None

    @override
    def on_delivery(self, consumer_tag: str, message: Incoming) -> None:
        if self.channel is not None:
            self._owner.on_delivery(self.channel, consumer_tag, message)


class UserQueues:
    """Declares, consumes and leaves users' queues."""

    def __init__(self, url: str, *, name: str, prefetch_count: int, listener: UserQueueListener, clock: Clock) -> None:
        self.link = BrokerLink(url, name=f"{name}-users", clock=clock, set_up=self._set_up, on_lost=self._lose)
        self._prefetch_count = prefetch_count
        self._listener = listener
        self._declares: Batcher[UUID, bool] = Batcher(self._declare, max_batch=_BATCH, calls_at_once=_DECLARE_CHANNELS)
        self._bound = BoundQueues(clock)
        self._declaring: deque[Channel] = deque()
        self._free_declaring = asyncio.Condition()
        self._consumes: Batcher[_Consumer, bool] = Batcher(
            self._consume, max_batch=_BATCH, calls_at_once=_CONSUME_CHANNELS
        )
        self._consuming: list[_Place] = []
        self._settled: dict[Channel, Settled] = {}
        self._next = 0
        self._consumers: dict[UUID, _Consumer] = {}
        self._by_tag: dict[str, _Consumer] = {}
        self._tags = itertools.count()

    @property
    def consumer_count(self) -> int:
        """Consumers the broker knows, as far as this process knows."""
        return len(self._consumers)

    def start(self) -> None:
        """Begin to connect."""
        self.link.start()

    async def close(self) -> None:
        """Close the connection: what is unsettled returns to its queues."""
        await self.link.close()

    async def declare(self, user_id: UUID) -> None:
        """Make sure the user's queue exists.

        Raises:
            Unavailable: RabbitMQ does not answer, or the queue exists with other arguments.
        """
        if not await self._declares.ask(user_id):
            raise Unavailable("RabbitMQ does not take the user's queue")

    async def _declare(self, user_ids: Sequence[UUID]) -> list[bool]:
        channel = await self._take_declaring()
        bound = self._bound.find(user_ids)
        try:
            async with asyncio.timeout(_RPC_LIMIT_S):
                await declare_user_queues(channel, user_ids, bound=bound)
        except (*BROKER_ERRORS, TimeoutError) as error:
            problem = error
        else:
            self._bound.note(each for each in user_ids if each not in bound)
            return [True] * len(user_ids)
        finally:
            await self._return_declaring(channel)
        if bound and self.link.is_ready and not isinstance(problem, TimeoutError):
            # One was deleted meanwhile: it is made and bound again.
            self._bound.forget(user_ids)
            return await self._declare(user_ids)
        if len(user_ids) == 1 or isinstance(problem, TimeoutError) or not self.link.is_ready:
            log.warning("user_queue_not_declared", problem=f"{type(problem).__name__}: {problem}", users=len(user_ids))
            return [False] * len(user_ids)
        # One of them exists with other arguments: the others are not to suffer for it.
        half = len(user_ids) // 2
        return [*await self._declare(user_ids[:half]), *await self._declare(user_ids[half:])]

    async def consume(self, user_id: UUID) -> None:
        """Begin to receive the user's frames; the queue must exist.

        Raises:
            Unavailable: RabbitMQ does not answer.
        """
        if user_id in self._consumers:
            return
        consumer = _Consumer(user_id, make_consumer_tag(user_id, next(self._tags)))
        self._consumers[user_id] = self._by_tag[consumer.tag] = consumer
        if await self._consumes.ask(consumer):
            return
        if self._consumers.get(user_id) is consumer:
            self._forget(consumer)
        raise Unavailable("RabbitMQ does not let the user's queue be consumed")

    async def _consume(self, consumers: Sequence[_Consumer]) -> list[bool]:
        if not self._consuming:
            return [False] * len(consumers)
        self._next = (self._next + 1) % len(self._consuming)
        place = self._consuming[self._next]
        try:
            # The limit is for the operation, not for waiting behind others: a time-out closes the channel, which takes
            # a quarter of the users with it, who would then all begin again, and wait still longer.
            async with place.turn:
                # The others left, or were lost, meanwhile.
                wanted = [each for each in consumers if self._consumers.get(each.user_id) is each]
                for each in wanted:
                    each.place = place
                async with asyncio.timeout(_RPC_LIMIT_S):
                    await consume_user_queues(
                        place.channel, [each.tag for each in wanted], prefetch_count=self._prefetch_count
                    )
        except (*BROKER_ERRORS, TimeoutError) as error:
            log.warning("user_queues_not_consumed", problem=f"{type(error).__name__}: {error}", users=len(consumers))
            return [False] * len(consumers)
        return [True] * len(consumers)

    async def leave(self, user_id: UUID, unsettled: Sequence[Receipt]) -> None:
        """Stop receiving the user's frames and return what is unsettled to the queue, in its order."""
        consumer = self._consumers.get(user_id)
        if consumer is None:
            return
        self._forget(consumer)
        place = consumer.place
        if place is None or place.channel.is_closed:
            return
        with contextlib.suppress(*BROKER_ERRORS, TimeoutError):
            # With an answer: what was on its way is delivered before it, and given back by `on_delivery`.
            async with place.turn, asyncio.timeout(_RPC_LIMIT_S):
                await place.channel.basic_cancel(consumer.tag)
            await self._give_back(place.channel, [each.tag for each in unsettled if each.channel is place.channel])

    async def give_back(self, receipt: Receipt) -> None:
        """Return one frame to its queue."""
        await self._give_back(receipt.channel, [receipt.tag])

    async def _give_back(self, channel: Channel, tags: Sequence[int]) -> None:
        await give_back(channel, tags)
        if (settled := self._settled.get(channel)) is not None:
            settled.pass_over(tags)

    async def settle(self, receipts: Iterable[Receipt]) -> None:
        """Tell RabbitMQ that these frames were received; receipts of a lost channel are passed over.

        One call at a time.
        """
        by_channel: dict[Channel, list[int]] = {}
        for receipt in receipts:
            by_channel.setdefault(receipt.channel, []).append(receipt.tag)
        for channel, tags in by_channel.items():
            if (settled := self._settled.get(channel)) is not None:
                settled.add(tags)
                await settled.write(channel)

    def on_delivery(self, channel: Channel, consumer_tag: str, message: Incoming) -> None:
        """A frame arrived on one of the consuming channels."""
        consumer = self._by_tag.get(consumer_tag)
        if consumer is None:
            spawn(self._give_back(channel, [message.delivery_tag]), name="give-back")
            return
        seq = message.headers.get(headers.SEQ)
        self._listener.on_frame(
            consumer.user_id,
            QueuedFrame(
                seq if isinstance(seq, int) else None,
                message.type,
                message.body,
                message.is_redelivered,
                Receipt(channel, message.delivery_tag),
                headers.EPHEMERAL in message.headers,
                message.message_id,
            ),
        )

    def _forget(self, consumer: _Consumer) -> None:
        del self._consumers[consumer.user_id]
        self._by_tag.pop(consumer.tag, None)

    async def _set_up(self, connection: Connection) -> None:
        await declare_topology(connection)
        self._consuming = [
            _Place(await self._open_consuming(connection), asyncio.Lock()) for _ in range(_CONSUME_CHANNELS)
        ]
        self._settled = {place.channel: Settled() for place in self._consuming}
        declaring = [await open_channel(connection) for _ in range(_DECLARE_CHANNELS)]
        async with self._free_declaring:
            self._declaring = deque(declaring)
            self._free_declaring.notify_all()

    async def _open_consuming(self, connection: Connection) -> Channel:
        tap = _ChannelTap(self)
        tap.channel = channel = await open_channel(connection, prefetch_count=self._prefetch_count, tap=tap)
        channel.on_consumer_cancel_callbacks.add(self._on_cancelled_by_broker)
        # A channel the broker closed takes a quarter of the users with it. Starting all of them again is rare and
        # simple; frames that come twice are known by their numbers.
        self.link.guard(channel)
        return channel

    async def _on_cancelled_by_broker(self, frame: spec.Basic.Cancel) -> None:
        user_id = read_consumer_tag(frame.consumer_tag or "")
        consumer = self._consumers.get(user_id)
        if consumer is not None and consumer.tag == frame.consumer_tag:
            log.warning("user_consumer_cancelled_by_broker")
            self._forget(consumer)
            self._bound.forget([user_id])
            self._listener.on_consumer_lost(user_id)

    def _lose(self) -> None:
        lost, self._consumers = self._consumers, {}
        self._by_tag = {}
        self._consuming = []
        self._settled = {}
        self._bound.clear()
        self._declaring.clear()
        for user_id in lost:
            self._listener.on_consumer_lost(user_id)

    async def _take_declaring(self) -> Channel:
        try:
            async with asyncio.timeout(_TURN_LIMIT_S), self._free_declaring:
                await self._free_declaring.wait_for(lambda: bool(self._declaring))
                return self._declaring.popleft()
        except TimeoutError:
            problem = "busy with the queues of others" if self.link.is_ready else "not connected"
            raise Unavailable(f"RabbitMQ is {problem}") from None

    async def _return_declaring(self, channel: Channel) -> None:
        # A refused declaration closes its channel; the next user gets a fresh one.
        if channel.is_closed:
            connection = self.link.connection
            if connection is None:
                return
            try:
                channel = await open_channel(connection)
            except BROKER_ERRORS:
                self.link.reset()
                return
        elif channel.connection is not self.link.connection:
            return
        async with self._free_declaring:
            self._declaring.append(channel)
            self._free_declaring.notify()
