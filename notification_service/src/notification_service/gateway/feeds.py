"""The users connected to this node: consuming their queues, handing frames to their devices, settling them.

The broker holds a frame as unacknowledged until a device has it. When nobody acknowledges for a while, the user's queue
is left and everything returned to it, long before RabbitMQ's own time-out would close the channel for everybody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final
from uuid import UUID

import structlog

from notification_service import failpoints, metrics
from notification_service.background import end_tasks, keep_running, spawn
from notification_service.broker.user_queues import QueuedFrame, Receipt, UserQueues
from notification_service.clock import Clock
from notification_service.errors import Unavailable
from notification_service.gateway.client import Client
from notification_service.gateway.feed import Feed
from notification_service.gateway.gossip import Gossip
from notification_service.gateway.live_events import InvalidLiveEvent, read_live_event
from notification_service.notifications.pages import FrameType

log = structlog.get_logger(__name__)

PARK_AFTER_S: Final = 45.0
"""Longest time the broker waits for one frame; RabbitMQ's own limit is 30 minutes, sites may set it to less, and beyond
it the channel is closed, which a quarter of the users share."""

_SETTLE_PAUSE_S: Final = 0.01
_RETRY_S: Final = 2.0


class Feeds:
    """All feeds of this node; told by the broker (`UserQueueListener`) and by the other nodes what arrives."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._feeds: dict[UUID, Feed] = {}
        self._to_settle: list[Receipt] = []
        self._has_receipts = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        # Set by `connect_to`: these two and the feeds need each other.
        self._queues: UserQueues
        self._gossip: Gossip

    def connect_to(self, queues: UserQueues, gossip: Gossip) -> None:
        """Complete the wiring."""
        self._queues = queues
        self._gossip = gossip

    def start(self) -> None:
        """Begin to settle."""
        self._task = keep_running(self._settle_for_ever, name="settle")

    async def stop(self) -> None:
        """Settle what is left and end."""
        await end_tasks(self._task)
        await self._settle()

    # --- who is here ----------------------------------------------------------------------------------------------

    @property
    def users(self) -> Iterable[UUID]:
        """Users with a device on this node."""
        return self._feeds.keys()

    @property
    def all(self) -> Iterable[Feed]:
        """All feeds."""
        return self._feeds.values()

    @property
    def expected_consumers(self) -> int:
        """Queues this node should be consuming."""
        return sum(feed.wants_consumer for feed in self._feeds.values())

    def find(self, user_id: UUID) -> Feed | None:
        """The feed of a user with a device on this node."""
        return self._feeds.get(user_id)

    def attach(self, connection: Client, user_id: UUID, tenant: str) -> Feed:
        """Add a device to its user's feed, which begins with the first one."""
        feed = self._feeds.get(user_id)
        if feed is None:
            feed = self._feeds[user_id] = Feed(user_id, tenant)
        feed.connections.append(connection)
        self._gossip.move(user_id)
        return feed

    def detach(self, connection: Client, user_id: UUID) -> None:
        """Take a device out; with the last one the user's queue is left, and what is unsettled returns to it."""
        feed = self._feeds.get(user_id)
        if feed is None or connection not in feed.connections:
            return
        feed.connections.remove(connection)
        if not feed.connections:
            del self._feeds[user_id]
            feed.wants_consumer = False
            spawn(self._queues.leave(user_id, feed.take_all()), name="leave-queue")
        self._gossip.move(user_id)

    # --- consuming ------------------------------------------------------------------------------------------------

    async def declare(self, feed: Feed) -> None:
        """Make sure the user's queue exists before the stream is read.

        Raises:
            Unavailable: RabbitMQ does not answer.
        """
        if not feed.is_declared:
            await self._queues.declare(feed.user_id)
            feed.is_declared = True

    async def consume(self, feed: Feed) -> None:
        """Begin to consume the user's queue, if this node does not do so already."""
        if feed.wants_consumer or not feed.connections:
            return
        feed.wants_consumer = True
        await self._consume(feed)

    async def _consume(self, feed: Feed) -> None:
        while feed.wants_consumer and self._feeds.get(feed.user_id) is feed:
            try:
                # Again after a loss: the queue may have been deleted, or may be on a broker that started empty.
                await self.declare(feed)
                if not feed.wants_consumer:
                    # The last device left meanwhile: a consumer without devices would keep the frames from other nodes.
                    return
                await self._queues.consume(feed.user_id)
            except Unavailable:
                await asyncio.sleep(_RETRY_S)
            else:
                return

    def on_consumer_lost(self, user_id: UUID) -> None:
        """The broker no longer delivers the user's frames here; what it waited for comes again."""
        feed = self._feeds.get(user_id)
        if feed is None:
            return
        # Where only the queue is gone, nobody else settles what came from it.
        self._settle_soon(feed.take_all())
        feed.is_declared = False
        if feed.wants_consumer:
            spawn(self._consume(feed), name="consume-again")

    # --- frames ---------------------------------------------------------------------------------------------------

    def on_frame(self, user_id: UUID, frame: QueuedFrame) -> None:
        """A frame arrived from a user's queue."""
        feed = self._feeds.get(user_id)
        if feed is None:
            # The last device left a moment ago. Unsettled, it would be held until RabbitMQ's own time-out (I07).
            spawn(self._queues.give_back(frame.receipt), name="give-back")
            return
        if frame.is_live:
            self._settle_soon([frame.receipt])
            self._on_live(feed, frame)
            return
        type_ = _TYPES.get(frame.type or "")
        if frame.seq is None or type_ is None:
            log.error("foreign_message_in_user_queue", type=frame.type)
            self._settle_soon([frame.receipt])
            return
        now = self._clock.monotonic()
        if feed.knows(frame.seq) and not frame.is_redelivered:
            metrics.duplicates_suppressed.inc()
        done = feed.add_unsettled(frame.seq, frame.receipt, now)
        self._hand_out(feed, frame.seq, type_, frame.body, is_repeat=frame.is_redelivered)
        if type_ is not FrameType.NOTIFICATION:
            # No device acknowledges a change of state: it is in the mailbox, and every resume tells of it.
            done = [*done, *feed.take(frame.seq)]
        self._settle_soon(done)
        self._gossip.forward(user_id, frame.seq, type_, frame.body)

    def _on_live(self, feed: Feed, frame: QueuedFrame) -> None:
        try:
            text = read_live_event(frame.body, frame.message_id, self._clock.now())
        except InvalidLiveEvent as invalid:
            log.warning("live_event_refused", problem=str(invalid))
            return
        self.show_live(feed.user_id, text)
        self._gossip.forward_live(feed.user_id, text)

    def show_live(self, user_id: UUID, text: bytes) -> None:
        """Write a frame that belongs to no stream to the user's devices here."""
        feed = self._feeds.get(user_id)
        for connection in tuple(feed.connections) if feed else ():
            connection.run(connection.session.on_live_event(text))

    def on_forwarded(self, user_id: UUID, seq: int, type_: str, body: bytes) -> None:
        """A frame arrived from the node that consumes the user's queue."""
        feed, known_type = self._feeds.get(user_id), _TYPES.get(type_)
        if feed is not None and known_type is not None:
            feed.last_seq = max(feed.last_seq, seq)
            self._hand_out(feed, seq, known_type, body, is_repeat=False)

    def _hand_out(self, feed: Feed, seq: int, type_: FrameType, body: bytes, *, is_repeat: bool) -> None:
        now = self._clock.monotonic()
        for connection in tuple(feed.connections):
            connection.run(connection.session.on_item(seq, type_, body, is_repeat=is_repeat, now=now))
        failpoints.reach("after_ws_send_before_client_ack")
        _FRAMES_SENT[type_].inc(len(feed.connections))

    # --- acknowledgements -----------------------------------------------------------------------------------------

    def on_acked(self, user_id: UUID, seq: int) -> None:
        """A device on this node has everything up to `seq`."""
        self._gossip.acked(user_id, seq)
        self.on_acked_elsewhere(user_id, seq)

    def on_acked_elsewhere(self, user_id: UUID, seq: int) -> None:
        """A device of the user has everything up to `seq`."""
        feed = self._feeds.get(user_id)
        if feed is None:
            return
        self._settle_soon(feed.take_acked(seq))
        if not feed.wants_consumer and feed.is_parked:
            feed.is_parked = False
            spawn(self.consume(feed), name="unpark")

    def park_waiting(self) -> None:
        """Leave the queues of users whose devices have had a frame for too long; with the next acknowledgement they are
        consumed again.
        """
        now = self._clock.monotonic()
        for feed in self._feeds.values():
            if feed.waited_s(now) > PARK_AFTER_S:
                log.info("user_queue_parked", unsettled=feed.unsettled_count)
                feed.wants_consumer = False
                feed.is_parked = True
                spawn(self._queues.leave(feed.user_id, feed.take_all()), name="park")

    def _settle_soon(self, receipts: list[Receipt]) -> None:
        if receipts:
            self._to_settle += receipts
            self._has_receipts.set()

    async def _settle_for_ever(self) -> None:
        while True:
            await self._has_receipts.wait()
            # Others add theirs meanwhile: one write for all, and one turn of the broker.
            await asyncio.sleep(_SETTLE_PAUSE_S)
            await self._settle()

    async def _settle(self) -> None:
        self._has_receipts.clear()
        receipts, self._to_settle = self._to_settle, []
        if receipts:
            failpoints.reach("after_client_ack_before_amqp_ack")
        await self._queues.settle(receipts)


_TYPES: Final = {str(type_): type_ for type_ in FrameType}

# Looked up once: finding a labelled counter costs a microsecond of each frame.
_FRAMES_SENT: Final = {type_: metrics.ws_frames_sent.labels(type_) for type_ in FrameType}
