"""One AMQP connection, opened again whenever it is lost, with everything on it built anew by its owner."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Final, cast
from weakref import WeakKeyDictionary

import aiormq
import structlog
from aiormq.channel import Channel
from aiormq.connection import Connection
from aiormq.exceptions import AMQPError, ChannelAccessRefused, ChannelPreconditionFailed
from yarl import URL

from notification_service import metrics
from notification_service.background import end_tasks, keep_running
from notification_service.broker.deliveries import Tap, TappedReader, TappedTransport
from notification_service.clock import Clock
from notification_service.errors import Unavailable

log = structlog.get_logger(__name__)

# 10 s: a dead peer is noticed after three missed beats and a second (33 s); the default of 60 s takes 183 s.
_HEARTBEAT_S: Final = 10
_CONNECT_LIMIT_S: Final = 10.0
# More than the 33 s after which missing beats tell of a dead peer: for one that beats, and does not answer.
_SET_UP_LIMIT_S: Final = 60.0
_CLOSE_LIMIT_S: Final = 5.0
_LAST_TURNS: Final = 20
"""Turns of the loop after which mostly nothing is left of a connection that was closed."""
_ENDING_LIMIT_S: Final = 1.0
_ENDINGS: Final = frozenset({"Connection._on_reader_done.<locals>.close_writer_task", "FutureStore.reject_all"})
"""Tasks of the library that end a connection."""
_FIRST_PAUSE = timedelta(milliseconds=200)
_LONGEST_PAUSE = timedelta(seconds=5)

# What goes wrong when a connection or channel dies under an operation.
BROKER_ERRORS = (AMQPError, ConnectionError, OSError, RuntimeError, asyncio.InvalidStateError)


class BrokerLink:
    """Keeps one connection open.

    `set_up` runs on every new connection and builds what its owner needs (channels, consumers); when it fails, or is
    not done after a minute, the connection is closed and tried again later. `on_lost` runs once for every connection
    that was set up and is gone.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str,
        clock: Clock,
        set_up: Callable[[Connection], Awaitable[None]],
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        # What it is for; the name of the process before it would make new series at every start.
        self._label = name.rpartition("-")[2]
        self._url = str(URL(url).update_query(heartbeat=_HEARTBEAT_S, name=f"herald-{name}"))
        self._clock = clock
        self._set_up = set_up
        self._on_lost = on_lost
        self._task: asyncio.Task[None] | None = None
        self._connection: Connection | None = None
        self._ready = asyncio.Event()
        self._reset_wanted = asyncio.Event()
        self._guarded: list[Channel] = []
        self.problem: str | None = "not connected yet"

    @property
    def is_ready(self) -> bool:
        """Whether the connection is open and set up."""
        return self._ready.is_set()

    @property
    def connection(self) -> Connection | None:
        """The open connection; None while there is none."""
        return self._connection if self.is_ready else None

    @property
    def is_blocked(self) -> bool:
        """Whether the broker has told this connection to stop publishing (memory or disk alarm)."""
        connection = self._connection
        if connection is None or not self.is_ready:
            return False
        # aiormq keeps the state in a private event and offers only a coroutine that waits for it.
        unblocked: asyncio.Event | None = getattr(connection, "_Connection__connection_unblocked", None)
        return unblocked is not None and not unblocked.is_set()

    def start(self) -> None:
        """Begin to connect, and to reconnect for ever."""
        self._task = keep_running(self._run, name=f"broker-link-{self.name}")

    async def wait_ready(self, limit: timedelta) -> None:
        """Return once connected and set up.

        Raises:
            Unavailable: Not within the limit.
        """
        try:
            async with asyncio.timeout(limit.total_seconds()):
                await self._ready.wait()
        except TimeoutError:
            raise Unavailable(f"RabbitMQ does not answer: {self.problem}") from None

    def guard(self, channel: Channel) -> None:
        """Treat the loss of this channel as the loss of the connection; for `set_up`."""
        self._guarded.append(channel)

    def reset(self) -> None:
        """Give this connection up, so that everything on it is built again."""
        self._reset_wanted.set()

    async def close(self) -> None:
        """Close the connection for good."""
        await end_tasks(self._task)
        if self._connection is not None:
            await _close(self._connection)
            self._connection = None

    async def _run(self) -> None:
        pause = _FIRST_PAUSE
        connected_before = False
        while True:
            started = self._clock.monotonic()
            try:
                await self._hold_connection(connected_before=connected_before)
                connected_before = True
            except (ChannelPreconditionFailed, ChannelAccessRefused) as error:
                # Someone declared the same name with other arguments, or took our rights. Nothing heals by hurrying.
                self.problem, pause = str(error), _LONGEST_PAUSE
                log.error(  # noqa: TRY400 - the sentence from the broker says it all
                    "topology_conflict", link=self.name, problem=str(error)
                )
            except (*BROKER_ERRORS, TimeoutError) as error:
                self.problem = f"{type(error).__name__}: {error}"
                log.warning("broker_connection_failed", link=self.name, problem=self.problem)
            if self._clock.monotonic() - started > _LONGEST_PAUSE.total_seconds():
                pause = _FIRST_PAUSE
            # Half to one and a half times the pause: processes that lost the broker together return one by one.
            await self._clock.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - no secret
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _hold_connection(self, *, connected_before: bool) -> None:
        connection: Connection | None = None
        was_set_up = False
        self._guarded = []
        self._reset_wanted.clear()
        try:
            async with asyncio.timeout(_CONNECT_LIMIT_S):
                transport = TappedTransport()
                self._connection = connection = await aiormq.connect(self._url, transport_factory=transport)
                _READERS[connection] = transport.reader
            async with asyncio.timeout(_SET_UP_LIMIT_S):
                await self._set_up(connection)
            was_set_up = True
            self.problem = None
            self._ready.set()
            log.info("broker_connected", link=self.name)
            if connected_before:
                metrics.amqp_reconnects.labels(self._label).inc()
            await self._wait_for_loss(connection)
            self.problem = "connection lost"
            log.warning("broker_connection_lost", link=self.name)
        finally:
            self._ready.clear()
            self._connection = None
            if was_set_up:
                self._on_lost()
            if connection is not None:
                await _close(connection)

    async def _wait_for_loss(self, connection: Connection) -> None:
        asked = asyncio.create_task(self._reset_wanted.wait())
        observers = [connection.closing, *(channel.closing for channel in self._guarded), asked]
        try:
            await asyncio.wait(observers, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for observer in observers:
                observer.cancel()


async def _close(connection: Connection) -> None:
    with contextlib.suppress(*BROKER_ERRORS, TimeoutError):
        async with asyncio.timeout(_CLOSE_LIMIT_S):
            await connection.close()
    # Where that broke off, the library goes on in tasks of its own. Left behind when the loop ends, they would be a
    # warning about coroutines that were never awaited.
    for _ in range(_LAST_TURNS):
        await asyncio.sleep(0)
    # They may wait for the socket, too.
    if endings := [task for task in asyncio.all_tasks() if _is_ending(task)]:
        await asyncio.wait(endings, timeout=_ENDING_LIMIT_S)


def _is_ending(task: asyncio.Task[Any]) -> bool:
    return getattr(task.get_coro(), "__qualname__", "") in _ENDINGS


_READERS: WeakKeyDictionary[Connection, TappedReader] = WeakKeyDictionary()


async def open_channel(
    connection: Connection, *, prefetch_count: int | None = None, confirms: bool = False, tap: Tap | None = None
) -> Channel:
    """A channel, of a connection that a link made.

    Args:
        connection: Open.
        prefetch_count: Messages not yet settled, at most, for each consumer.
        confirms: Whether the broker confirms what is published on it.
        tap: Is given deliveries, returned messages and confirms, in place of the library.
    """
    # The declared type is the abstract one, which lacks `wait` and the write queue.
    channel = cast("Channel", await connection.channel(publisher_confirms=confirms, on_return_raises=True))
    if tap is not None:
        reader, number = _READERS[connection], channel.number
        reader.tap(number, tap)
        channel.closing.add_done_callback(lambda _: reader.untap(number))
    if prefetch_count is not None:
        await channel.basic_qos(prefetch_count=prefetch_count)
    return channel
