"""A small confirmed publisher for backend services (`pip install herald-shared-contracts[publisher]`).

::

    async with NotificationPublisher("amqp://user:password@broker/", source="shop") as herald:
        await herald.publish(NotificationRequest(title="Hello", recipients=Recipients(users=(user_id,))))
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Self
from uuid import UUID

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange
from aiormq.exceptions import AMQPError, ChannelInvalidStateError, DeliveryError

from shared_contracts import topology
from shared_contracts.ids import new_id
from shared_contracts.requests import MAX_REQUEST_BYTES, NotificationRequest

DEFAULT_CONFIRM_TIMEOUT = timedelta(seconds=10)
# 10 s: a dead broker is noticed after 33 s (three missed heartbeats and a second) instead of 183 s.
_HEARTBEAT_S = 10


class PublishFailed(Exception):
    """The message was not confirmed.

    Attributes:
        may_have_arrived: True when the outcome is unknown. Publish again with the same message id: Herald takes it
            once.
    """

    def __init__(self, text: str, *, may_have_arrived: bool) -> None:
        super().__init__(text)
        self.may_have_arrived = may_have_arrived


class NotificationPublisher:
    """Publishes notifications, mandatory and persistent, and returns once RabbitMQ has confirmed them.

    One connection, opened on first use and again after a failure. Safe to use from many tasks of one event loop;
    publishes are pipelined, so many at once cost little more than one.
    """

    def __init__(self, url: str, *, source: str, confirm_timeout: timedelta = DEFAULT_CONFIRM_TIMEOUT) -> None:
        self._url = url
        self._source = source
        self._confirm_timeout = confirm_timeout
        self._connection: AbstractConnection | None = None
        self._exchanges: dict[str, AbstractExchange] = {}
        # aio-pika keeps channels weakly: one that nobody holds is collected.
        self._channel: AbstractChannel | None = None
        self._opening = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def publish(
        self, request: NotificationRequest, *, routing_key: str | None = None, message_id: UUID | None = None
    ) -> UUID:
        """Hand one notification to RabbitMQ.

        Args:
            request: At most 64 KiB when encoded.
            routing_key: `private`, `group` or `event` on `notifications.direct`; None chooses by the recipients, and
                sends `recipients.all` to `notifications.fanout`.
            message_id: The idempotency key, and the notification's id. None makes a new one.

        Returns:
            The message id.

        Raises:
            ValueError: The encoded request is too long.
            PublishFailed: Not confirmed; its attribute says whether it may have arrived all the same.
        """
        message_id = message_id or new_id()
        body = request.model_dump_json(exclude_none=True).encode()
        if len(body) > MAX_REQUEST_BYTES:
            raise ValueError(f"the request has {len(body)} bytes, at most {MAX_REQUEST_BYTES} are allowed")
        message = aio_pika.Message(
            body,
            message_id=str(message_id),
            content_type="application/json",
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            app_id=self._source,
            timestamp=datetime.now(UTC),
        )
        exchange, key = _address(request, routing_key)
        try:
            # The whole call: publish() waits for a lost connection without limit before its own timeout starts.
            async with asyncio.timeout(self._confirm_timeout.total_seconds()):
                target = await self._open(exchange)
                await target.publish(message, key, mandatory=True)
        except DeliveryError as error:
            raise PublishFailed(f"RabbitMQ did not take {message_id}: {error}", may_have_arrived=False) from error
        except (AMQPError, ChannelInvalidStateError, OSError, RuntimeError) as error:
            raise PublishFailed(
                f"the connection failed while publishing {message_id}", may_have_arrived=True
            ) from error
        except TimeoutError as error:
            raise PublishFailed(f"no confirm for {message_id} in time", may_have_arrived=True) from error
        return message_id

    async def close(self) -> None:
        """Close the connection; the publisher may be used again."""
        connection, self._connection, self._channel = self._connection, None, None
        self._exchanges.clear()
        if connection is not None:
            await connection.close()

    async def _open(self, exchange: topology.Exchange) -> AbstractExchange:
        async with self._opening:
            if (
                self._connection is None
                or self._connection.is_closed
                or self._channel is None
                or self._channel.is_closed
            ):
                await self.close()
                self._connection = await aio_pika.connect(self._url, heartbeat=_HEARTBEAT_S)
                # Without on_return_raises an unroutable message comes back as if it had been taken.
                self._channel = await self._connection.channel(publisher_confirms=True, on_return_raises=True)
            if exchange.name not in self._exchanges:
                self._exchanges[exchange.name] = await self._channel.get_exchange(exchange.name, ensure=False)
            return self._exchanges[exchange.name]


def _address(request: NotificationRequest, routing_key: str | None) -> tuple[topology.Exchange, str]:
    if routing_key is not None:
        return topology.NOTIFICATIONS_DIRECT, routing_key
    if request.recipients.all:
        return topology.NOTIFICATIONS_FANOUT, ""
    return topology.NOTIFICATIONS_DIRECT, topology.KEY_EVENT if request.recipients.roles else str(
        request.kind_for(None)
    )
