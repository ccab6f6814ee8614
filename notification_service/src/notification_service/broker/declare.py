"""Declaring the topology. Each declaration runs on a channel of its own: a refusal closes the channel it is made on."""

from __future__ import annotations

import asyncio
from typing import Final

from aiormq.channel import Channel
from aiormq.connection import Connection

from notification_service.broker.link import BROKER_ERRORS, open_channel
from shared_contracts.topology import TOPOLOGY, Binding, Exchange, Queue

_PROBE_LIMIT_S: Final = 2.0


async def declare_topology(connection: Connection) -> None:
    """Make sure every exchange, queue and binding of the table exists.

    Raises:
        ChannelPreconditionFailed: One exists with other arguments; the message names it.
    """
    channel = await open_channel(connection)
    for exchange in TOPOLOGY.exchanges:
        await declare_exchange(channel, exchange)
    for queue in TOPOLOGY.queues:
        await declare_queue(channel, queue)
    for binding in TOPOLOGY.bindings:
        await bind(channel, binding)
    await channel.close()


async def declare_exchange(channel: Channel, exchange: Exchange) -> None:
    """Declare one exchange."""
    await channel.exchange_declare(exchange.name, exchange_type=exchange.type, durable=True)


async def declare_queue(channel: Channel, queue: Queue) -> int:
    """Declare one queue; answers how many messages are ready in it."""
    declared = await channel.queue_declare(
        queue.name, durable=not queue.exclusive, exclusive=queue.exclusive, arguments=dict(queue.arguments)
    )
    return declared.message_count or 0


async def bind(channel: Channel, binding: Binding) -> None:
    """Bind one queue to one exchange."""
    await channel.queue_bind(binding.queue.name, binding.exchange.name, binding.routing_key)


async def count_consumers(connection: Connection, queue: str) -> int:
    """How many consumers a queue has; 0 when it does not exist.

    On a channel of its own: asking for a queue that is missing closes the channel (404).
    """
    try:
        async with asyncio.timeout(_PROBE_LIMIT_S):
            channel = await open_channel(connection)
            found = await channel.queue_declare(queue, passive=True)
            await channel.close()
    except (*BROKER_ERRORS, TimeoutError):
        return 0
    return found.consumer_count or 0
