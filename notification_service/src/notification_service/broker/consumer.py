"""Consuming a work queue in batches: what has arrived is handled together, settled one by one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any, Final

import structlog
from aiormq import spec
from aiormq.channel import Channel
from aiormq.connection import Connection
from typing_extensions import override

from notification_service.background import end_tasks, keep_running
from notification_service.broker.declare import declare_topology
from notification_service.broker.deliveries import Incoming, TapBase
from notification_service.broker.link import BrokerLink, open_channel
from notification_service.broker.settling import Settled
from notification_service.clock import Clock

__all__ = ("BatchConsumer", "BatchHandler", "Incoming", "consume")

log = structlog.get_logger(__name__)

_FAILURE_PAUSE: Final = timedelta(milliseconds=500)
_LONGEST_FAILURE_PAUSE: Final = timedelta(seconds=5)


BatchHandler = Callable[[Sequence[Incoming]], Awaitable[Awaitable[None]]]
"""Does what must be done in order, and answers the rest. Messages are settled when the rest has ended."""


# 20 ms: a quorum queue writes an entry to its log for each acknowledgement it gets, however many messages it covers.
_SETTLE_PAUSE_S: Final = 0.02


class BatchConsumer(TapBase):
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
        # Each with the channel it came on.
        self._arrived: asyncio.Queue[tuple[Channel, Incoming]] = asyncio.Queue()
        self._channel: Channel | None = None
        self._tag: str | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._finishing: set[asyncio.Task[None]] = set()
        self._settled = Settled()
        self._settling: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()

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
            await end_tasks(self._task)
        if self._finishing:
            await asyncio.wait(self._finishing, timeout=limit.total_seconds())
        self._hurry.set()
        if self._settling is not None:
            await self._settling
        await self.link.close()

    async def _set_up(self, connection: Connection) -> None:
        await declare_topology(connection)
        # Twice the batch: while one is being stored the next one arrives.
        channel = await open_channel(connection, prefetch_count=2 * self._batch_size, tap=self)
        self.link.guard(channel)
        channel.on_consumer_cancel_callbacks.add(self._on_cancelled_by_broker)
        self._channel, self._settled = channel, Settled()
        self._tag = await consume(channel, self.queue)

    def _lose(self) -> None:
        self._channel = self._tag = None
        # Wakes the worker; what it holds from the old channel can no longer be settled and will come again.
        self._arrived.put_nowait(_WAKE)

    @override
    def on_delivery(self, consumer_tag: str, message: Incoming) -> None:
        if self._channel is not None:
            self._arrived.put_nowait((self._channel, message))

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

    async def _take_batch(self) -> list[Incoming]:
        arrived = self._arrived
        batch = [await arrived.get()]
        while len(batch) < self._batch_size and not arrived.empty():
            batch.append(arrived.get_nowait())
        channel = self._channel
        return [message for origin, message in batch if origin is channel and channel is not None]

    async def _handle_until_done(self, incoming: list[Incoming]) -> None:
        channel = self._channel
        pause = _FAILURE_PAUSE
        while not self._stopping and channel is not None and self._channel is channel:
            try:
                rest = await self._handle(incoming)
            except Exception as error:
                log.error(  # noqa: TRY400 - the traceback is in exc_info
                    "batch_failed",
                    queue=self.queue,
                    messages=len(incoming),
                    pause_s=pause.total_seconds(),
                    exc_info=error,
                )
                await self._clock.sleep(pause)
                pause = min(pause * 2, _LONGEST_FAILURE_PAUSE)
            else:
                finishing = asyncio.create_task(self._finish(rest, channel, incoming))
                self._finishing.add(finishing)
                finishing.add_done_callback(self._finishing.discard)
                return

    async def _finish(self, rest: Awaitable[None], channel: Channel, incoming: list[Incoming]) -> None:
        try:
            await rest
        except Exception as error:
            log.error("batch_not_finished", queue=self.queue, messages=len(incoming), exc_info=error)  # noqa: TRY400
        if channel is self._channel:
            self._settled.add([message.delivery_tag for message in incoming])
            if self._settling is None:
                self._settling = asyncio.create_task(self._settle_soon())

    async def _settle_soon(self) -> None:
        # Whatever else is done meanwhile goes with it. A crash in between makes them come again, and they are known.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SETTLE_PAUSE_S):
                await self._hurry.wait()
        self._settling = None
        if self._channel is not None:
            await self._settled.write(self._channel)


_WAKE: Any = (None, None)


async def consume(channel: Channel, queue: str) -> str:
    """Begin to consume on a tapped channel; answers the consumer's tag."""
    ok = await channel.basic_consume(queue, never_called)
    return ok.consumer_tag or ""


async def never_called(_message: object) -> None:
    """The library's idea of a consumer, on a tapped channel."""
    raise AssertionError("the tap takes all deliveries")
