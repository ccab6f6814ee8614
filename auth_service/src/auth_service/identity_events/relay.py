"""From the outbox to RabbitMQ: confirmed, in the order of revisions, by one relay at a time.

Any number of relays may run; a lease lets one publish. When it dies the next takes over within the lease's lifetime and
publishes again what was not marked: consumers know a revision they have seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import ParamSpec, TypeVar

import aio_pika
import structlog
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange
from aiormq.exceptions import AMQPError, ChannelInvalidStateError, DeliveryError
from django.db import DatabaseError, connection

from auth_service.identity_events.outbox import (
    Envelope,
    do_give_back_lease,
    do_mark_published,
    do_take_lease,
    find_pending,
)
from auth_service.metrics import PUBLISH_SECONDS, PUBLISHED
from shared_contracts.ids import new_id
from shared_contracts.topology import IDENTITY_EVENTS

log = structlog.get_logger(__name__)

LEASE_NAME = "identity-events-relay"
LEASE_LIFETIME = timedelta(seconds=3)
"""How long events wait when a relay dies: well within the five seconds an administrator's change may take."""
BATCH_SIZE = 500
CONFIRM_TIMEOUT_S = 10.0
_HEARTBEAT_S = 10
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 5.0

_BROKER_ERRORS = (AMQPError, ChannelInvalidStateError, OSError, RuntimeError, TimeoutError)

_P = ParamSpec("_P")
_R = TypeVar("_R")


class BrokerUnavailable(Exception):
    """RabbitMQ did not confirm: what was sent may or may not have arrived."""


class EventPublisher:
    """One connection to RabbitMQ, made when it is needed and thrown away when it fails."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: AbstractConnection | None = None
        # aio-pika keeps channels weakly: one that nobody holds is collected.
        self._channel: AbstractChannel | None = None
        self._exchange: AbstractExchange | None = None

    async def publish(self, events: Sequence[Envelope]) -> int:
        """Publish in this order, all in flight together; answer how many from the first on are confirmed.

        Not mandatory: a fanout that nobody listens to yet is no fault, whoever comes later reads the full copy.

        Raises:
            BrokerUnavailable: Not even the first one.
        """
        started_s = time.perf_counter()
        try:
            async with asyncio.timeout(CONFIRM_TIMEOUT_S):
                exchange = await self._open()
                # Tasks begin in the order they are made, and the channel's lock is fair: so is the order on the wire.
                sent = [asyncio.create_task(self._publish_one(exchange, event)) for event in events]
                outcomes = await asyncio.gather(*sent, return_exceptions=True)
        except _BROKER_ERRORS as error:
            await self.close()
            PUBLISHED.labels(outcome="timeout" if isinstance(error, TimeoutError) else "error").inc()
            raise BrokerUnavailable(type(error).__name__) from error
        PUBLISH_SECONDS.observe(time.perf_counter() - started_s)
        failed = next((place for place, outcome in enumerate(outcomes) if outcome is not None), len(outcomes))
        PUBLISHED.labels(outcome="ok").inc(failed)
        if failed < len(outcomes):
            PUBLISHED.labels(outcome="nack" if isinstance(outcomes[failed], DeliveryError) else "error").inc()
            await self.close()
            if failed == 0:
                raise BrokerUnavailable(type(outcomes[0]).__name__)
        return failed

    async def close(self) -> None:
        """Drop the connection; the next publish makes another."""
        dropped, self._connection, self._channel, self._exchange = self._connection, None, None, None
        if dropped is not None:
            with contextlib.suppress(*_BROKER_ERRORS):  # it was broken anyway
                async with asyncio.timeout(1):
                    await dropped.close()

    async def _open(self) -> AbstractExchange:
        if self._connection is None or self._connection.is_closed or self._channel is None or self._channel.is_closed:
            await self.close()
            self._connection = await aio_pika.connect(
                self._url, heartbeat=_HEARTBEAT_S, client_properties={"connection_name": "auth-relay"}
            )
            self._channel = await self._connection.channel(publisher_confirms=True, on_return_raises=True)
            self._exchange = await self._channel.declare_exchange(
                IDENTITY_EVENTS.name, aio_pika.ExchangeType(IDENTITY_EVENTS.type), durable=True
            )
        assert self._exchange is not None
        return self._exchange

    @staticmethod
    async def _publish_one(exchange: AbstractExchange, event: Envelope) -> None:
        message = aio_pika.Message(
            event.body,
            content_type="application/json",
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            # aio-pika matches confirms by message id: unique per attempt. Consumers go by the revision in the body.
            message_id=str(new_id()),
            type=event.type,
            timestamp=event.occurred_at,
            app_id="auth-service",
            headers={"x-herald-revision": event.revision},
        )
        await exchange.publish(message, "", mandatory=False)


class Relay:
    """Looks into the outbox every `interval` and publishes what is there."""

    def __init__(self, url: str, *, interval: timedelta) -> None:
        self._publisher = EventPublisher(url)
        self._interval_s = interval.total_seconds()
        self._holder = f"{socket.gethostname()[:40]}:{os.getpid()}:{new_id().hex[-8:]}"
        # One thread for the database: Django's connections belong to threads.
        self._database = ThreadPoolExecutor(1, thread_name_prefix="relay-database")
        self._pause_s = 0.0
        self._lease_renewed_s = float("-inf")

    async def run(self, stop: asyncio.Event) -> None:
        """Relay until told to stop. Neither a broker nor a database that is away ends it."""
        log.info("relay_started", holder=self._holder)
        while not stop.is_set():
            wait_s = await self._step()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await stop.wait()
        with contextlib.suppress(DatabaseError):  # it lapses by itself
            await self._in_database(do_give_back_lease, LEASE_NAME, self._holder)
        await self._publisher.close()
        self._database.shutdown()
        log.info("relay_stopped", holder=self._holder)

    async def _step(self) -> float:
        """Publish one batch; answer how long to wait before the next."""
        try:
            if not await self._hold_lease():
                return LEASE_LIFETIME.total_seconds() / 3
            events = await self._in_database(find_pending, BATCH_SIZE)
            if not events:
                return self._interval_s
            confirmed = await self._publisher.publish(events)
            await self._in_database(do_mark_published, [event.revision for event in events[:confirmed]])
        except (BrokerUnavailable, DatabaseError) as error:
            self._pause_s = min(max(self._pause_s * 2, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)
            log.warning("relay_waiting", error=str(error)[:100], kind=type(error).__name__, pause_s=self._pause_s)
            return self._pause_s
        if self._pause_s:
            log.info("relay_recovered")
        self._pause_s = 0.0
        log.debug("events_published", count=confirmed, last_revision=events[confirmed - 1].revision)
        return 0.0 if len(events) == BATCH_SIZE else self._interval_s

    async def _hold_lease(self) -> bool:
        if time.monotonic() - self._lease_renewed_s < LEASE_LIFETIME.total_seconds() / 3:
            return True
        held = await self._in_database(do_take_lease, LEASE_NAME, self._holder, LEASE_LIFETIME)
        self._lease_renewed_s = time.monotonic() if held else float("-inf")
        return held

    async def _in_database(self, work: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
        def call() -> _R:
            try:
                return work(*args, **kwargs)
            except DatabaseError:
                connection.close()
                raise

        return await asyncio.get_running_loop().run_in_executor(self._database, call)
