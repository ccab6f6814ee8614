"""Declaring the topology. Each declaration runs on a channel of its own: a refusal closes the channel it is made on."""

from __future__ import annotations

from uuid import UUID

from aiormq.channel import Channel
from aiormq.connection import Connection

from notification_service.broker.link import open_channel
from shared_contracts.topology import DELIVERY_DIRECT, TOPOLOGY, Binding, Exchange, Queue, user_queue


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


async def declare_user_queue(channel: Channel, user_id: UUID) -> None:
    """Declare one user's durable queue and bind it; harmless when both exist."""
    queue = user_queue(user_id)
    await declare_queue(channel, queue)
    await bind(channel, Binding(DELIVERY_DIRECT, queue, queue.name))
