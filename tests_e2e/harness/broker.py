"""The broker as a backend service sees it: publishing with confirms, looking at queues."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import aio_pika
from aio_pika.abc import AbstractConnection, AbstractExchange

from harness.stack import Stack


class Backend:
    """A plain AMQP client, with nothing of Herald's own code."""

    def __init__(self, stack: Stack, connection: AbstractConnection) -> None:
        self._stack = stack
        self._connection = connection
        self._exchanges: dict[str, AbstractExchange] = {}
        self._channel: Any = None

    async def publish(
        self,
        body: dict[str, Any] | bytes,
        *,
        key: str = "private",
        exchange: str = "notifications.direct",
        message_id: str | None = None,
        headers: dict[str, Any] | None = None,
    ) -> str:
        """Publish one message, confirmed; answers its message id, a new one unless given."""
        used_id = message_id or str(uuid.uuid4())
        if self._channel is None or self._channel.is_closed:
            self._channel = await self._connection.channel(publisher_confirms=True, on_return_raises=True)
            self._exchanges.clear()
        if exchange not in self._exchanges:
            self._exchanges[exchange] = await self._channel.get_exchange(exchange, ensure=False)
        await self._exchanges[exchange].publish(
            aio_pika.Message(
                body if isinstance(body, bytes) else json.dumps(body).encode(),
                message_id=used_id,
                content_type="application/json",
                delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
                app_id="backend",
                headers=headers,
            ),
            key,
            timeout=15,
        )
        return used_id

    async def send_to(self, user_id: str, title: str, **fields: Any) -> str:
        """Publish a private notification."""
        return await self.publish({"title": title, "body": title, "recipients": {"users": [user_id]}, **fields})

    async def depth(self, queue: str) -> int:
        """Messages ready in a queue."""
        channel = await self._connection.channel()
        declared = await channel.declare_queue(queue, passive=True)
        await channel.close()
        return declared.declaration_result.message_count or 0

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()


@contextlib.asynccontextmanager
async def backend_of(stack: Stack) -> AsyncIterator[Backend]:
    """A connected backend service."""
    connection = await aio_pika.connect(stack.node.url)
    backend = Backend(stack, connection)
    try:
        yield backend
    finally:
        await backend.close()


def queue_counts(stack: Stack, queue: str) -> tuple[int, int]:
    """(ready, unacknowledged) as RabbitMQ itself counts them; (0, 0) when the queue does not exist."""
    listed = stack.node.ctl("list_queues", "name", "messages_ready", "messages_unacknowledged")
    for line in listed.splitlines():
        name, ready, unacknowledged = line.split("\t")
        if name == queue:
            return int(ready), int(unacknowledged)
    return 0, 0
