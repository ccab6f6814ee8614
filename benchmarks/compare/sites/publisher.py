"""A backend service that publishes by the library's own means what the load tells it to: lines `<user> <json>`.

publisher.py channels|socketio <port>
"""

# mypy: ignore-errors
# The packages are in another environment.

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable

Publish = Callable[[str, str], Awaitable[None]]


def make_channels() -> Publish:
    """Send to the user's group."""
    from channels_redis.core import RedisChannelLayer  # noqa: PLC0415 - one of two

    layer = RedisChannelLayer(hosts=[os.environ["REDIS_URL"]], capacity=100_000)

    async def publish(user_id: str, text: str) -> None:
        await layer.group_send(f"user.{user_id}", {"type": "notification", "text": text})

    return publish


def make_socketio() -> Publish:
    """Emit to the user's room."""
    import socketio  # noqa: PLC0415 - one of two

    manager = socketio.AsyncRedisManager(os.environ["REDIS_URL"], write_only=True)

    async def publish(user_id: str, text: str) -> None:
        await manager.emit("notification", json.loads(text), room=user_id)

    return publish


async def serve(publish: Publish, port: int) -> None:
    """Publish what comes in; what came together is published side by side."""
    at_once = asyncio.Semaphore(64)

    async def publish_one(line: bytes) -> None:
        user_id, _, text = line.decode().partition(" ")
        async with at_once:
            await publish(user_id, text)

    async def take(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        running: set[asyncio.Task[None]] = set()
        while line := await reader.readline():
            task = asyncio.create_task(publish_one(line))
            running.add(task)
            task.add_done_callback(running.discard)

    server = await asyncio.start_server(take, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    import uvloop

    uvloop.run(serve({"channels": make_channels, "socketio": make_socketio}[sys.argv[1]](), int(sys.argv[2])))
