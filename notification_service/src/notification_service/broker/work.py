"""Consuming several work queues over one connection, each message settled by itself, in any order."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import structlog
from aiormq import spec
from aiormq.channel import Channel
from aiormq.connection import Connection
from typing_extensions import override

from notification_service.background import end_tasks, keep_running
from notification_service.broker.consumer import consume
from notification_service.broker.declare import declare_queue, declare_topology
from notification_service.broker.deliveries import Incoming, TapBase
from notification_service.broker.link import BROKER_ERRORS, BrokerLink, open_channel
from notification_service.broker.settling import acknowledge
from notification_service.clock import Clock
from shared_contracts.topology import Queue

log = structlog.get_logger(__name__)

_FAILURE_PAUSE: Final = timedelta(milliseconds=500)
_LONGEST_FAILURE_PAUSE: Final = timedelta(seconds=5)
_BATCHES_AT_ONCE: Final = 4
"""Of one queue: what arrives while the database is asked about one batch need not wait for its answer."""
_STOP: Final[Any] = (None, None)

Settle = Callable[[Incoming], None]
"""Acknowledges one message. On a lost channel that is void: the message comes again."""

WorkHandler = Callable[[Sequence[Incoming], Settle], Awaitable[None]]
"""Takes a batch on; returns when it is under way. Raising means: nothing was begun, try again. `settle` is called once
for every message, whenever it is done."""


@dataclass(frozen=True, slots=True)
class Work:
    """One queue to consume.

    Attributes:
        queues: What is declared with it; the first one is consumed.
        prefetch: Messages not yet settled, at most: it bounds memory, and what comes again after a crash.
        batch_size: Messages handed over together.
        drain: Returns when everything under way is settled; called when no more is taken.
    """

    queues: Sequence[Queue]
    prefetch: int
    batch_size: int
    handle: WorkHandler
    drain: Callable[[], Awaitable[None]]

    @property
    def queue(self) -> str:
        """The queue that is consumed."""
        return self.queues[0].name


class WorkConsumers:
    """Consumes; if any queue or channel is lost, everything is built again."""

    def __init__(self, url: str, *, name: str, works: Sequence[Work], clock: Clock) -> None:
        self.link = BrokerLink(url, name=name, clock=clock, set_up=self._set_up, on_lost=self._lose)
        self._works = [_Consuming(work, clock, self.link) for work in works]

    @property
    def is_alive(self) -> bool:
        """Whether the broker delivers from every queue."""
        return self.link.is_ready and all(each.tag is not None for each in self._works)

    def count_arrived(self, queue: str) -> int:
        """Messages of this queue that are here and not yet handed over."""
        return sum(each.arrived for each in self._works if each.work.queue == queue)

    def start(self) -> None:
        """Begin to consume."""
        self.link.start()
        for each in self._works:
            each.start()

    async def stop(self, limit: timedelta = timedelta(seconds=10)) -> None:
        """Take no more messages, wait for those under way, return the rest to the queues."""
        await asyncio.gather(*(each.stop(limit) for each in self._works))
        await self.link.close()

    async def _set_up(self, connection: Connection) -> None:
        await declare_topology(connection)
        admin = await open_channel(connection)
        for each in self._works:
            for queue in each.work.queues:
                await declare_queue(admin, queue)
        await admin.close()
        for each in self._works:
            await each.consume(connection)

    def _lose(self) -> None:
        for each in self._works:
            each.lose()


class _Consuming(TapBase):
    """One queue's consumer."""

    def __init__(self, work: Work, clock: Clock, link: BrokerLink) -> None:
        self.work = work
        self.tag: str | None = None
        self._clock = clock
        self._link = link
        self._channel: Channel | None = None
        self._arrived: asyncio.Queue[tuple[Channel, Incoming]] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._handing_over: set[asyncio.Task[None]] = set()
        self._turns = asyncio.Semaphore(_BATCHES_AT_ONCE)
        self._stopping = False
        self._to_acknowledge: list[int] = []

    @property
    def arrived(self) -> int:
        return self._arrived.qsize()

    def start(self) -> None:
        self._task = keep_running(self._run, name=f"work-{self.work.queue}")

    async def consume(self, connection: Connection) -> None:
        channel = await open_channel(connection, prefetch_count=self.work.prefetch, tap=self)
        self._link.guard(channel)
        channel.on_consumer_cancel_callbacks.add(self._on_cancelled_by_broker)
        self._channel = channel
        self._to_acknowledge = []
        self.tag = await consume(channel, self.work.queue)

    def lose(self) -> None:
        self._channel = self.tag = None
        self._arrived.put_nowait(_STOP)

    async def stop(self, limit: timedelta) -> None:
        self._stopping = True
        if self._channel is not None and self.tag is not None:
            with contextlib.suppress(*BROKER_ERRORS, TimeoutError):
                await self._channel.basic_cancel(self.tag, timeout=2)
        await end_tasks(self._task, *self._handing_over)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit.total_seconds()):
                await self.work.drain()
        await self._flush()

    @override
    def on_delivery(self, consumer_tag: str, message: Incoming) -> None:
        if self._channel is not None:
            self._arrived.put_nowait((self._channel, message))

    async def _on_cancelled_by_broker(self, _frame: spec.Basic.Cancel) -> None:
        log.warning("consumer_cancelled_by_broker", queue=self.work.queue)
        self.tag = None
        self._link.reset()

    async def _run(self) -> None:
        while not self._stopping:
            await self._turns.acquire()
            try:
                batch = await self._take_batch()
            except BaseException:
                self._turns.release()
                raise
            task = asyncio.get_running_loop().create_task(self._hand_over(batch), name=f"hand-over-{self.work.queue}")
            self._handing_over.add(task)
            task.add_done_callback(self._on_handed_over)

    def _on_handed_over(self, task: asyncio.Task[None]) -> None:
        self._handing_over.discard(task)
        self._turns.release()

    async def _take_batch(self) -> list[Incoming]:
        arrived = self._arrived
        batch = [await arrived.get()]
        while len(batch) < self.work.batch_size and not arrived.empty():
            batch.append(arrived.get_nowait())
        channel = self._channel
        return [message for origin, message in batch if origin is channel and channel is not None]

    async def _hand_over(self, incoming: list[Incoming]) -> None:
        channel = self._channel
        pause = _FAILURE_PAUSE

        def settle(message: Incoming) -> None:
            self._settle(channel, message)

        while incoming and not self._stopping and self._channel is channel:
            try:
                await self.work.handle(incoming, settle)
            except Exception as error:
                log.error(  # noqa: TRY400 - the traceback is in exc_info
                    "work_failed",
                    queue=self.work.queue,
                    messages=len(incoming),
                    pause_s=pause.total_seconds(),
                    exc_info=error,
                )
                await self._clock.sleep(pause)
                pause = min(pause * 2, _LONGEST_FAILURE_PAUSE)
            else:
                return

    def _settle(self, channel: Channel | None, message: Incoming) -> None:
        if channel is None or channel is not self._channel:
            return
        if not self._to_acknowledge:
            # What is done in the same turn of the loop goes out as one write.
            asyncio.get_running_loop().call_soon(lambda: asyncio.ensure_future(self._flush()))
        self._to_acknowledge.append(message.delivery_tag)

    async def _flush(self) -> None:
        channel, tags = self._channel, self._to_acknowledge
        self._to_acknowledge = []
        if channel is not None and tags:
            await acknowledge(channel, tags)
