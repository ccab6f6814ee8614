"""This process's own queue: broadcasts, gossip, identity events, and what other nodes send to this one alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog
from aiormq import spec
from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel
from aiormq.connection import Connection

from notification_service.broker.consumer import Incoming, acknowledge, read_message
from notification_service.broker.declare import bind, declare_exchange, declare_queue
from notification_service.broker.link import BrokerLink, open_channel
from notification_service.clock import Clock
from shared_contracts.topology import Binding, Exchange, node_queue

log = structlog.get_logger(__name__)

_PREFETCH = 1000


class NodeQueue:
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
        self.queue_name: str | None = None

    def start(self) -> None:
        """Begin to connect."""
        self.link.start()

    async def close(self) -> None:
        """Close the connection; the queue goes with it."""
        await self.link.close()

    async def _set_up(self, connection: Connection) -> None:
        channel = await open_channel(connection, prefetch_count=_PREFETCH)
        self.link.guard(channel)
        channel.on_consumer_cancel_callbacks.add(self._on_cancelled_by_broker)
        # A new name for every connection: the broker may still hold the old one exclusively (405 RESOURCE_LOCKED).
        self._generation += 1
        queue = node_queue(f"{self._node_id}.{self._generation}")
        await declare_queue(channel, queue)
        for exchange in self._exchanges:
            await declare_exchange(channel, exchange)
            await bind(channel, Binding(exchange, queue))

        async def receive(message: DeliveredMessage) -> None:
            await self._receive(channel, message)

        await channel.basic_consume(queue.name, receive)
        self.queue_name = queue.name
        self._on_connected()

    async def _on_cancelled_by_broker(self, _frame: spec.Basic.Cancel) -> None:
        # The queue was deleted while this node lives: without a new one it would be deaf to broadcasts and gossip.
        log.warning("node_consumer_cancelled_by_broker", queue=self.queue_name)
        self.link.reset()

    async def _receive(self, channel: Channel, message: DeliveredMessage) -> None:
        self._on_message(read_message(message))
        await acknowledge(channel, [message.delivery_tag or 0])
