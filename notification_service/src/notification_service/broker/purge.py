"""Taking some messages out of a queue, and leaving the others in their order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import structlog
from aiormq import spec
from aiormq.connection import Connection
from aiormq.exceptions import ChannelNotFoundEntity

from notification_service.broker.link import BROKER_ERRORS, open_channel
from notification_service.errors import Unavailable

log = structlog.get_logger(__name__)

MAX_MESSAGES: Final = 10_000
"""Looked at in one go: two to three seconds. Beyond it the tail of the queue is not looked at."""

_LIMIT_S: Final = 60.0


async def purge_queue(connection: Connection | None, queue: str, is_wanted: Callable[[bytes], bool]) -> int:
    """Go once through a queue and drop what nobody wants any more; answers how many that were.

    What stays is published again behind the rest before its first copy is acknowledged: dying in between leaves two
    copies, never none. Returning it instead would count against the queue's delivery limit.

    Args:
        is_wanted: Decides by the body.

    Raises:
        Unavailable: RabbitMQ does not answer. What was dropped is dropped.
    """
    if connection is None:
        raise Unavailable("RabbitMQ is not connected")
    dropped = 0
    try:
        async with asyncio.timeout(_LIMIT_S):
            channel = await open_channel(connection, confirms=True)
            declared = await channel.queue_declare(queue, passive=True)
            for _ in range(min(declared.message_count or 0, MAX_MESSAGES)):
                message = await channel.basic_get(queue)
                if message.delivery_tag is None or isinstance(message.delivery, spec.Basic.GetEmpty):
                    break
                if is_wanted(message.body):
                    await channel.basic_publish(
                        message.body, exchange="", routing_key=queue, properties=message.header.properties
                    )
                else:
                    dropped += 1
                await channel.basic_ack(message.delivery_tag)
            await channel.close()
    except ChannelNotFoundEntity:
        return 0
    except (*BROKER_ERRORS, TimeoutError) as error:
        raise Unavailable(f"the queue {queue} cannot be gone through: {type(error).__name__}") from error
    return dropped


async def delete_queue(connection: Connection | None, queue: str) -> None:
    """Delete a queue with what is in it; one that is not there is no error.

    Raises:
        Unavailable: RabbitMQ does not answer.
    """
    if connection is None:
        raise Unavailable("RabbitMQ is not connected")
    try:
        async with asyncio.timeout(_LIMIT_S):
            channel = await open_channel(connection)
            await channel.queue_delete(queue)
            await channel.close()
    except (*BROKER_ERRORS, TimeoutError) as error:
        raise Unavailable(f"the queue {queue} cannot be deleted: {type(error).__name__}") from error
