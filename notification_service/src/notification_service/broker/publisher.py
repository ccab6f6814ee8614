"""Confirmed publishing: mandatory, persistent, pipelined; every message ends in one of four outcomes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import structlog
from aiormq.channel import Channel
from aiormq.connection import Connection

from notification_service import metrics
from notification_service.broker.burst import Burst, Confirms, Outcome
from notification_service.broker.declare import declare_topology
from notification_service.broker.link import BROKER_ERRORS, BrokerLink, open_channel
from notification_service.clock import Clock

__all__ = ("CONFIRM_LIMIT", "Outcome", "Outgoing", "Publisher")

log = structlog.get_logger(__name__)

CONFIRM_LIMIT: Final = timedelta(seconds=10)
"""After this long the outcome is unknown. RabbitMQ confirms within milliseconds, unless it hangs or blocks."""

# In flight at once on the channel: enough to keep the broker busy, small enough to bound memory.
_MAX_BURST: Final = 250
_MAX_BURSTS: Final = 64


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
        self._confirms = Confirms()
        self._slots = asyncio.Semaphore(_MAX_BURSTS)
        self._bursts: set[Burst] = set()

    def start(self) -> None:
        """Begin to connect."""
        self.link.start()
        metrics.amqp_blocked.set_function(lambda: float(self.link.is_blocked))

    async def close(self) -> None:
        """Close the connection; publishes in flight end with `TIMEOUT`."""
        await self.link.close()

    async def publish(self, message: Outgoing) -> Outcome:
        """Publish one message and return once its outcome is known, within 10 s. Never raises."""
        return (await self.publish_all([message]))[0]

    async def publish_all(self, messages: Sequence[Outgoing]) -> list[Outcome]:
        """Publish many, in order, without waiting for one confirm before the next; outcomes in the same order."""
        if len(messages) <= _MAX_BURST:
            return await self._publish(messages)
        chunks = [messages[start : start + _MAX_BURST] for start in range(0, len(messages), _MAX_BURST)]
        outcomes = await asyncio.gather(*(self._publish(chunk) for chunk in chunks))
        return [outcome for each in outcomes for outcome in each]

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

    async def _publish(self, messages: Sequence[Outgoing]) -> list[Outcome]:
        started = self._clock.monotonic()
        async with self._slots:
            outcomes = await self._write_and_wait(messages)
        took_s = self._clock.monotonic() - started
        for outcome, count in Counter(outcomes).items():
            metrics.publishes.labels(outcome).inc(count)
            if outcome is Outcome.OK:
                metrics.publish_confirm_seconds.observe(took_s)
            else:
                exchange, type_ = messages[outcomes.index(outcome)].exchange, messages[outcomes.index(outcome)].type
                log.warning("publish_not_confirmed", outcome=outcome, exchange=exchange, type=type_, messages=count)
        return outcomes

    async def _write_and_wait(self, messages: Sequence[Outgoing]) -> list[Outcome]:
        burst = Burst(len(messages))
        channel, confirms = self._channel, self._confirms
        if channel is None or channel.is_closed:
            return burst.outcomes
        self._bursts.add(burst)
        try:
            async with asyncio.timeout(CONFIRM_LIMIT.total_seconds()):
                await confirms.write(channel, burst, messages)
                await burst.done
        except (*BROKER_ERRORS, TimeoutError):
            pass  # what is not known by now stays unknown
        finally:
            burst.give_up()
            confirms.forget(messages)
            self._bursts.discard(burst)
        return burst.outcomes

    async def _set_up(self, connection: Connection) -> None:
        self._confirms = Confirms()
        channel = await open_channel(connection, confirms=True, tap=self._confirms)
        self.link.guard(channel)
        self._channel = channel

    def _lose(self) -> None:
        self._channel = None
        for burst in self._bursts:
            burst.give_up()
