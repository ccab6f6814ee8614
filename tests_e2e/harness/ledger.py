"""The verdict of a fault run: what was attempted, what was acknowledged to the publisher, what was received."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import aio_pika
from aiormq.exceptions import AMQPError

from harness.people import Person
from harness.sockets import Frame, Socket, connect
from harness.stack import Stack
from harness.waiting import eventually


@dataclass
class Ledger:
    """Counts by notification id; see RabbitMQ's own Jepsen suite for the words."""

    attempted: set[str] = field(default_factory=set)
    acknowledged: set[str] = field(default_factory=set)
    received: dict[str, Counter[str]] = field(default_factory=dict)
    order_faults: list[str] = field(default_factory=list)

    def lost(self, person: Person) -> set[str]:
        """Acknowledged to the publisher and never received."""
        return self.acknowledged - set(self.received.get(person.id, ()))

    def unexpected(self) -> set[str]:
        """Received and never attempted."""
        return {each for seen in self.received.values() for each in seen} - self.attempted


class StubbornPublisher:
    """A backend that publishes until it has the confirm, with the same message id, whatever happens to the broker."""

    def __init__(self, stack: Stack, ledger: Ledger) -> None:
        self._stack = stack
        self._ledger = ledger
        self._connection: aio_pika.abc.AbstractConnection | None = None
        self._exchange: aio_pika.abc.AbstractExchange | None = None

    async def publish(self, user_id: str, number: int) -> str:
        """One private notification; returns once it is confirmed."""
        message_id = str(uuid.uuid4())
        self._ledger.attempted.add(message_id)
        body = f'{{"title":"n{number}","body":"b","recipients":{{"users":["{user_id}"]}}}}'.encode()
        while True:
            try:
                async with asyncio.timeout(10):
                    exchange = await self._open()
                    await exchange.publish(
                        aio_pika.Message(
                            body,
                            message_id=message_id,
                            content_type="application/json",
                            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
                            app_id="ledger",
                        ),
                        "private",
                    )
            except (AMQPError, OSError, RuntimeError, TimeoutError, asyncio.CancelledError) as error:
                if isinstance(error, asyncio.CancelledError) and asyncio.current_task().cancelling():  # type: ignore[union-attr]
                    raise
                self._exchange = None
                await asyncio.sleep(0.2)
            else:
                self._ledger.acknowledged.add(message_id)
                return message_id

    async def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            await self._connection.close()

    async def _open(self) -> aio_pika.abc.AbstractExchange:
        if self._exchange is None or self._connection is None or self._connection.is_closed:
            self._connection = await aio_pika.connect(self._stack.node.url, timeout=5)
            channel = await self._connection.channel(publisher_confirms=True, on_return_raises=True)
            self._exchange = await channel.get_exchange("notifications.direct", ensure=False)
            self._channel = channel  # aio-pika holds channels weakly
        return self._exchange


class StubbornClient:
    """A device that reconnects to any node, goes on from its position, and writes down what it gets."""

    def __init__(self, stack: Stack, person: Person, ledger: Ledger, *, first_node: int = 0) -> None:
        self._stack = stack
        self._person = person
        self._seen = ledger.received.setdefault(person.id, Counter())
        self._ledger = ledger
        self._node = first_node
        self._position: str | None = None
        self._task = asyncio.create_task(self._run())
        self.ready = asyncio.Event()
        self.reconnects = -1

    async def stop(self) -> None:
        """Disconnect."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def wait_for(self, wanted: set[str], within_s: float) -> None:
        """Return when everything has arrived."""

        async def missing() -> set[str]:
            if self._task.done():
                self._task.result()
            return wanted - set(self._seen)

        await eventually(missing, is_good=lambda left: not left, within_s=within_s)

    async def _run(self) -> None:
        while True:
            url = self._stack.system.notify_urls[self._node % len(self._stack.system.notify_urls)]
            try:
                socket = await connect(url, self._person.access, device_id="ledger", position=self._position)
            except Exception:  # noqa: BLE001 - whatever keeps it out, it tries the next node
                self._node += 1
                await asyncio.sleep(0.2)
                continue
            self.reconnects += 1
            self.ready.set()
            try:
                await self._follow(socket)
            finally:
                await socket.close()
            self._node += 1

    async def _follow(self, socket: Socket) -> None:
        last_seq = 0
        while True:
            try:
                frame: Frame = await socket.next("notification", within_s=3600)
            except AssertionError:
                if socket.close_code in (4501, 4503, 4505, 4500):
                    raise
                return
            if frame["seq"] <= last_seq and not frame["redelivered"]:
                self._ledger.order_faults.append(f"{last_seq} then {frame['seq']}")
            last_seq = frame["seq"]
            self._seen[frame["id"]] += 1
            self._position = frame["position"]


async def run_ledger(
    stack: Stack,
    people: Sequence[Person],
    fault: Callable[[], object] | None,
    *,
    messages: int,
    rounds: int,
    pause_s: float,
    between_s: tuple[float, float] = (0.2, 1.5),
) -> Ledger:
    """Publish to everybody, in order for each, while a fault strikes; then wait until everything has arrived.

    Args:
        fault: Runs in a thread.
        messages: To publish to all of them together.
        rounds: How often the fault strikes.
        pause_s: Between two messages to one person, as long as it strikes: spreads them over that time.
        between_s: Shortest and longest time between two strikes.
    """
    ledger = Ledger()
    clients = [StubbornClient(stack, person, ledger, first_node=number) for number, person in enumerate(people)]
    for client in clients:
        await asyncio.wait_for(client.ready.wait(), 30)
    striking = asyncio.create_task(_strike(fault, rounds, between_s))
    publishers = [StubbornPublisher(stack, ledger) for _ in people]

    async def publish(publisher: StubbornPublisher, person: Person) -> list[str]:
        sent = []
        for number in range(messages // len(people)):
            sent.append(await publisher.publish(person.id, number))
            await asyncio.sleep(0 if striking.done() else pause_s)
        return sent

    sent = await asyncio.gather(*(publish(*pair) for pair in zip(publishers, people, strict=True)))
    await striking
    await asyncio.to_thread(stack.revive)
    for client, wanted in zip(clients, sent, strict=True):
        await client.wait_for(set(wanted), within_s=90)
    # What would come twice, or too much, comes within this time.
    await asyncio.sleep(0.5)
    for closing in (*(client.stop() for client in clients), *(publisher.close() for publisher in publishers)):
        await closing
    for person, wanted in zip(people, sent, strict=True):
        assert ledger.received[person.id].keys() == set(wanted)
    assert ledger.order_faults == []
    assert ledger.unexpected() == set()
    return ledger


async def _strike(fault: Callable[[], object] | None, rounds: int, between_s: tuple[float, float]) -> None:
    chance = random.Random()
    for _ in range(rounds):
        await asyncio.sleep(chance.uniform(*between_s))
        if fault is not None:
            await asyncio.to_thread(fault)
