"""Consuming a work queue in batches: what has arrived is handled together, settled one by one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, cast

import structlog
from aiormq import spec
from aiormq.abc import ChannelFrame, DeliveredMessage
from aiormq.channel import Channel
from aiormq.connection import Connection

from notification_service.background import keep_running
from notification_service.broker.declare import declare_topology
from notification_service.broker.link import BROKER_ERRORS, BrokerLink, open_channel
from notification_service.clock import Clock

log = structlog.get_logger(__name__)

_FAILURE_PAUSE: Final = timedelta(milliseconds=500)
_LONGEST_FAILURE_PAUSE: Final = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class Incoming:
    """One message as it arrived."""

    body: bytes
    exchange: str
    routing_key: str
    message_id: str | None
    content_type: str | None
    app_id: str | None
    type: str | None
    headers: dict[str, Any]
    is_redelivered: bool
    delivery_tag: int


BatchHandler = Callable[[Sequence[Incoming]], Awaitable[Awaitable[None]]]
"""Does what must be done in order, and answers the rest. Messages are settled when the rest has ended."""


class BatchConsumer:
    """Takes messages from one queue and hands what has arrived to `handle`, one batch at a time, in order.

    No waiting for a batch to fill: under light load a batch is one message. A handler that raises is asked again with
    the same messages after a pause that grows to 5 s: they stay unacknowledged, so nothing is lost, and nothing spins
    while a dependency is down. What a handler answers runs beside the next batch; prefetch bounds how much that is.
    """

    def __init__(self, url: str, *, queue: str, name: str, handle: BatchHandler, batch_size: int, clock: Clock) -> None:
        self.queue = queue
        self.link = BrokerLink(url, name=name, clock=clock, set_up=self._set_up, on_lost=self._lose)
        self._handle = handle
        self._batch_size = batch_size
        self._clock = clock
        self._arrived: asyncio.Queue[DeliveredMessage] = asyncio.Queue()
        self._channel: Channel | None = None
        self._tag: str | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._finishing: set[asyncio.Task[None]] = set()

    @property
    def is_alive(self) -> bool:
        """Whether the broker delivers to this consumer."""
        return self.link.is_ready and self._tag is not None

    def start(self) -> None:
        """Begin to consume."""
        self.link.start()
        self._task = keep_running(self._work, name=f"consume-{self.queue}")

    async def stop(self, limit: timedelta = timedelta(seconds=10)) -> None:
        """Finish the batch in hand, take no more, return the rest to the queue.

        The consumer is not cancelled first: the broker would hand what comes next to a worker that stands by while
        this one still holds what came before. Closing the connection returns everything in its order, then the next
        worker begins.
        """
        self._stopping = True
        if self._task is not None:
            self._arrived.put_nowait(_WAKE)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(limit.total_seconds()):
                    await self._idle.wait()
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._finishing:
            await asyncio.wait(self._finishing, timeout=limit.total_seconds())
        await self.link.close()

    async def _set_up(self, connection: Connection) -> None:
        await declare_topology(connection)
        # Twice the batch: while one is being stored the next one arrives.
        channel = await open_channel(connection, prefetch_count=2 * self._batch_size)
        self.link.guard(channel)
        channel.on_consumer_cancel_callbacks.add(self._on_cancelled_by_broker)
        self._channel = channel
        ok = await channel.basic_consume(self.queue, self._on_message)
        self._tag = ok.consumer_tag

    def _lose(self) -> None:
        self._channel = self._tag = None
        # Wakes the worker; what it holds from the old channel can no longer be settled and will come again.
        self._arrived.put_nowait(_WAKE)

    async def _on_message(self, message: DeliveredMessage) -> None:
        self._arrived.put_nowait(message)

    async def _on_cancelled_by_broker(self, _frame: spec.Basic.Cancel) -> None:
        # The queue was deleted: build everything again, the queue included.
        log.warning("consumer_cancelled_by_broker", queue=self.queue)
        self._tag = None
        self.link.reset()

    async def _work(self) -> None:
        while not self._stopping:
            batch = await self._take_batch()
            if batch and not self._stopping:
                self._idle.clear()
                await self._handle_until_done(batch)
                self._idle.set()

    async def _take_batch(self) -> list[DeliveredMessage]:
        arrived = self._arrived
        batch = [await arrived.get()]
        while len(batch) < self._batch_size and not arrived.empty():
            batch.append(arrived.get_nowait())
        channel = self._channel
        return [message for message in batch if message is not _WAKE and message.channel is channel]

    async def _handle_until_done(self, batch: list[DeliveredMessage]) -> None:
        incoming = [read_message(message) for message in batch]
        pause = _FAILURE_PAUSE
        while not self._stopping and self._channel is batch[0].channel:
            try:
                rest = await self._handle(incoming)
            except Exception as error:
                log.error(  # noqa: TRY400 - the traceback is in exc_info
                    "batch_failed", queue=self.queue, messages=len(batch), pause_s=pause.total_seconds(), exc_info=error
                )
                await self._clock.sleep(pause)
                pause = min(pause * 2, _LONGEST_FAILURE_PAUSE)
            else:
                finishing = asyncio.create_task(self._finish(rest, batch))
                self._finishing.add(finishing)
                finishing.add_done_callback(self._finishing.discard)
                return

    async def _finish(self, rest: Awaitable[None], batch: list[DeliveredMessage]) -> None:
        try:
            await rest
        except Exception as error:
            log.error("batch_not_finished", queue=self.queue, messages=len(batch), exc_info=error)  # noqa: TRY400
        await acknowledge(cast("Channel", batch[0].channel), [message.delivery_tag or 0 for message in batch])


_WAKE: Any = object()


def read_message(message: DeliveredMessage) -> Incoming:
    """A delivered message without the library's types."""
    properties = message.header.properties
    delivery = message.delivery
    return Incoming(
        body=message.body,
        exchange=getattr(delivery, "exchange", "") or "",
        routing_key=getattr(delivery, "routing_key", "") or "",
        message_id=properties.message_id,
        content_type=properties.content_type,
        app_id=properties.app_id,
        type=properties.message_type,
        headers=dict(properties.headers or {}),
        is_redelivered=bool(getattr(delivery, "redelivered", False)),
        delivery_tag=message.delivery_tag or 0,
    )


async def acknowledge(channel: Channel, delivery_tags: Sequence[int]) -> None:
    """Send many acknowledgements as one write. On a lost channel they are void: the messages come again."""
    if not delivery_tags or channel.is_closed:
        return
    frames = [spec.Basic.Ack(tag) for tag in delivery_tags]
    with contextlib.suppress(*BROKER_ERRORS):
        await channel.write_queue.put(ChannelFrame.marshall(channel_number=channel.number, frames=frames))
