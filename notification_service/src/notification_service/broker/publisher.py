"""Confirmed publishing: mandatory, persistent, pipelined; every message ends in one of four outcomes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

import structlog
from aiormq import spec
from aiormq.channel import Channel
from aiormq.connection import Connection
from aiormq.exceptions import DeliveryError, PublishError

from notification_service import metrics
from notification_service.broker.declare import declare_topology
from notification_service.broker.link import BROKER_ERRORS, BrokerLink, open_channel
from notification_service.clock import Clock

log = structlog.get_logger(__name__)

CONFIRM_LIMIT: Final = timedelta(seconds=10)
"""After this long the outcome is unknown. RabbitMQ confirms within milliseconds, unless it hangs or blocks."""

# In flight at once on the channel: enough to keep the broker busy, small enough to bound memory.
_MAX_IN_FLIGHT: Final = 1000


class Outcome(StrEnum):
    """What became of one publish."""

    OK = "ok"
    NACK = "nack"
    RETURNED = "returned"
    TIMEOUT = "timeout"
    """Not confirmed: the broker may or may not have it. Publish again with the same identity."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message to publish.

    Attributes:
        message_id: Unique per attempt on a channel: returned messages are matched by it.
        expiration: After this long the broker may drop it.
    """

    exchange: str
    routing_key: str
    body: bytes
    message_id: str
    type: str | None = None
    headers: dict[str, Any] = field(default_factory=dict)
    app_id: str | None = None
    timestamp: datetime | None = None
    expiration: timedelta | None = None
    persistent: bool = True
    mandatory: bool = True


class Publisher:
    """Publishes over a connection of its own, so that a blocked publisher never stops a consumer."""

    def __init__(self, url: str, *, name: str, clock: Clock) -> None:
        self.link = BrokerLink(url, name=f"{name}-publish", clock=clock, set_up=self._set_up, on_lost=self._lose)
        self._clock = clock
        self._channel: Channel | None = None
        self._slots = asyncio.Semaphore(_MAX_IN_FLIGHT)

    def start(self) -> None:
        """Begin to connect."""
        self.link.start()

    async def close(self) -> None:
        """Close the connection; publishes in flight end with `TIMEOUT`."""
        await self.link.close()

    async def publish(self, message: Outgoing) -> Outcome:
        """Publish one message and return once its outcome is known, within 10 s. Never raises."""
        started = self._clock.monotonic()
        async with self._slots:
            outcome = await self._publish(message)
        metrics.publishes.labels(outcome).inc()
        if outcome is Outcome.OK:
            metrics.publish_confirm_seconds.observe(self._clock.monotonic() - started)
        else:
            log.warning("publish_not_confirmed", outcome=outcome, exchange=message.exchange, type=message.type)
        return outcome

    async def publish_all(self, messages: Sequence[Outgoing]) -> list[Outcome]:
        """Publish many, in order, without waiting for one confirm before the next; outcomes in the same order."""
        if len(messages) == 1:
            return [await self.publish(messages[0])]
        return list(await asyncio.gather(*(self.publish(message) for message in messages)))

    async def declare_again(self) -> bool:
        """Declare the whole topology: something of it was deleted while we were connected. Whether that worked."""
        connection = self.link.connection
        try:
            if connection is None:
                return False
            async with asyncio.timeout(CONFIRM_LIMIT.total_seconds()):
                await declare_topology(connection)
        except (*BROKER_ERRORS, TimeoutError):
            log.warning("topology_not_declared")
            return False
        return True

    async def _publish(self, message: Outgoing) -> Outcome:
        channel = self._channel
        if channel is None or channel.is_closed:
            return Outcome.TIMEOUT
        try:
            confirmation = await channel.basic_publish(
                message.body,
                exchange=message.exchange,
                routing_key=message.routing_key,
                properties=_properties(message),
                mandatory=message.mandatory,
                timeout=CONFIRM_LIMIT.total_seconds(),
                wait=False,
            )
        except PublishError:
            return Outcome.RETURNED
        except DeliveryError:
            return Outcome.NACK
        except (*BROKER_ERRORS, TimeoutError):
            return Outcome.TIMEOUT
        except asyncio.CancelledError:
            # aiormq cancels its waiters when the connection goes; our own cancellation goes on.
            if channel.is_closed and not _is_cancelled():
                return Outcome.TIMEOUT
            raise
        return Outcome.OK if isinstance(confirmation, spec.Basic.Ack) else Outcome.NACK

    async def _set_up(self, connection: Connection) -> None:
        channel = await open_channel(connection, confirms=True)
        self.link.guard(channel)
        self._channel = channel

    def _lose(self) -> None:
        self._channel = None


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _properties(message: Outgoing) -> spec.Basic.Properties:
    expiration = message.expiration
    return spec.Basic.Properties(
        content_type="application/json",
        delivery_mode=2 if message.persistent else 1,
        message_id=message.message_id,
        message_type=message.type,
        app_id=message.app_id,
        timestamp=message.timestamp,
        headers=message.headers or None,
        # RabbitMQ takes milliseconds as text; 0 would mean "only if someone takes it at once".
        expiration=str(max(1, int(expiration.total_seconds() * 1000))) if expiration is not None else None,
    )
