"""RabbitMQ seen from outside the service: a plain client that looks, declares and publishes."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any, cast
from uuid import uuid4

import aiormq
from aiormq import spec
from aiormq.channel import Channel
from aiormq.connection import Connection


class Bystander:
    """Every call on a channel of its own: a refusal closes the channel it is made on."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    @contextlib.asynccontextmanager
    async def channel(self) -> AsyncIterator[Channel]:
        channel = cast("Channel", await self.connection.channel(publisher_confirms=True, on_return_raises=True))
        yield channel
        await channel.close()

    async def declare(self, queue: str, *, exchange: str | None = None, key: str = "", **arguments: Any) -> None:
        """A durable queue with these arguments (`max_length` for `x-max-length`), bound if wanted."""
        async with self.channel() as channel:
            table = {"x-" + name.replace("_", "-"): value for name, value in arguments.items()}
            await channel.queue_declare(queue, durable=True, arguments=table)
            if exchange is not None:
                await channel.queue_bind(queue, exchange, key)

    async def delete(self, queue: str) -> None:
        async with self.channel() as channel:
            await channel.queue_delete(queue)

    async def unbind(self, queue: str, exchange: str, key: str = "") -> None:
        async with self.channel() as channel:
            await channel.queue_unbind(queue, exchange, key)

    async def publish(
        self, body: bytes, *, exchange: str = "", key: str = "", message_id: str | None = None, **properties: Any
    ) -> str:
        """Publish, confirmed; answers the message id."""
        used_id = message_id or str(uuid4())
        async with self.channel() as channel:
            await channel.basic_publish(
                body,
                exchange=exchange,
                routing_key=key,
                properties=spec.Basic.Properties(message_id=used_id, delivery_mode=2, **properties),
                mandatory=True,
                timeout=30,
            )
        return used_id

    async def publish_many(self, bodies: list[bytes], queue: str) -> None:
        """Into one queue, in order, on one channel."""
        async with self.channel() as channel:
            for body in bodies:
                await channel.basic_publish(body, routing_key=queue, timeout=30)

    async def depth(self, queue: str) -> int:
        """Messages ready; -1 when the queue does not exist."""
        return await self._count(queue, "message_count")

    async def consumers(self, queue: str) -> int:
        """Consumers; -1 when the queue does not exist."""
        return await self._count(queue, "consumer_count")

    async def take(self, queue: str) -> Any:
        """The next message, settled; None when the queue is empty."""
        async with self.channel() as channel:
            message = await channel.basic_get(queue, no_ack=True, timeout=30)
            return message if isinstance(message.delivery, spec.Basic.GetOk) else None

    async def take_all(self, queue: str) -> list[Any]:
        """All messages, settled, in order."""
        taken = []
        while (message := await self.take(queue)) is not None:
            taken.append(message)
        return taken

    async def _count(self, queue: str, what: str) -> int:
        channel = await self.connection.channel()
        try:
            declared = await channel.queue_declare(queue, passive=True)
        except aiormq.exceptions.ChannelNotFoundEntity:
            return -1
        await channel.close()
        return int(getattr(declared, what) or 0)


@contextlib.asynccontextmanager
async def bystander(url: str) -> AsyncIterator[Bystander]:
    """A connected one."""
    connection = await aiormq.connect(url)
    try:
        yield Bystander(connection)
    finally:
        await connection.close()
