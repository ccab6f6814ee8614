"""This process's own queue: broadcasts, gossip, identity events, and what other nodes send to this one alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog
from aiormq import spec
from aiormq.channel import Channel
from aiormq.connection import Connection
from typing_extensions import override

from notification_service.background import spawn
from notification_service.broker.consumer import consume
from notification_service.broker.declare import bind, declare_exchange, declare_queue
from notification_service.broker.deliveries import Incoming, TapBase
from notification_service.broker.link import BrokerLink, open_channel
from notification_service.broker.settling import acknowledge
from notification_service.clock import Clock
from shared_contracts.topology import Binding, Exchange, node_queue

log = structlog.get_logger(__name__)

_PREFETCH = 1000


class NodeQueue(TapBase):
    """Consumes an exclusive queue that lives as long as the connection.

    What is published while the connection is away is not kept: `on_connected` tells the owner that it may have missed
    something, every time.
    """

    def __init__(
        self,
        url: str,
        *,
        node_id: str,
        name: str,
        exchanges: Sequence[Exchange],
        on_message: Callable[[Incoming], None],
        on_connected: Callable[[], None],
        clock: Clock,
    ) -> None:
        self.link = BrokerLink(url, name=f"{name}-node", clock=clock, set_up=self._set_up)
        self._node_id = node_id
        self._exchanges = exchanges
        self._on_message = on_message
        self._on_connected = on_connected
        self._generation = 0
        self._channel: Channel | None = None
        self._tags: list[int] = []
        self.queue_name: str | None = None

    def start(self) -> None:
        """Begin to connect."""
        self.link.start()

    async def close(self) -> None:
        """Close the connection; the queue goes with it."""
        await self.link.close()

    async def _set_up(self, connection: Connection) -> None:
        self._tags = []
        self._channel = channel = await open_channel(connection, prefetch_count=_PREFETCH, tap=self)
        self.link.guard(channel)
        channel.on_consumer_cancel_callbacks.add(self._on_cancelled_by_broker)
        # A new name for every connection: the broker may still hold the old one exclusively (405 RESOURCE_LOCKED).
        self._generation += 1
        queue = node_queue(f"{self._node_id}.{self._generation}")
        await declare_queue(channel, queue)
        for exchange in self._exchanges:
            await declare_exchange(channel, exchange)
            await bind(channel, Binding(exchange, queue))

        await consume(channel, queue.name)
        self.queue_name = queue.name
        self._on_connected()

    async def _on_cancelled_by_broker(self, _frame: spec.Basic.Cancel) -> None:
        # The queue was deleted while this node lives: without a new one it would be deaf to broadcasts and gossip.
        log.warning("node_consumer_cancelled_by_broker", queue=self.queue_name)
        self.link.reset()

    @override
    def on_delivery(self, consumer_tag: str, message: Incoming) -> None:
        if not self._tags:
            # What arrives with this message is settled with it, as one write.
            spawn(self._acknowledge(), name="node-acknowledge")
        self._tags.append(message.delivery_tag)
        self._on_message(message)

    async def _acknowledge(self) -> None:
        tags, self._tags = self._tags, []
        if self._channel is not None:
            await acknowledge(self._channel, tags)
