"""Consuming in batches: settled once handled, kept when it cannot be, never in a hot loop (I02, I13, I17, I21)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import pytest
from amqp import Bystander
from clocks import SetClock
from waiting import until

from herald_local.rabbitmq import RabbitNode
from notification_service.broker.consumer import BatchConsumer, Incoming
from notification_service.broker.declare import declare_topology
from shared_contracts.topology import DELIVERY_LIMIT, INTAKE, INTAKE_POISON

QUEUE = INTAKE.name


async def _nothing() -> None:
    """The rest of a batch, when there is none."""


class Handler:
    """Notes what it is given; fails as often as told; its rest waits when told to."""

    def __init__(self) -> None:
        self.calls: list[list[bytes]] = []
        self.failures_left = 0
        self.rest: Callable[[], Awaitable[None]] = _nothing
        self.gate = asyncio.Event()
        self.gate.set()

    @property
    def handled(self) -> list[bytes]:
        return [body for call in self.calls for body in call]

    async def __call__(self, batch: Sequence[Incoming]) -> Awaitable[None]:
        await self.gate.wait()
        if self.failures_left:
            self.failures_left -= 1
            raise RuntimeError("the database is away")
        self.calls.append([each.body for each in batch])
        return self.rest()


@contextlib.asynccontextmanager
async def consuming(
    url: str, handler: Handler, clock: SetClock, *, batch_size: int = 10, queue: str = QUEUE
) -> AsyncIterator[BatchConsumer]:
    consumer = BatchConsumer(url, queue=queue, name="test", handle=handler, batch_size=batch_size, clock=clock)
    consumer.start()
    try:
        await until(lambda: consumer.is_alive)
        yield consumer
    finally:
        handler.gate.set()
        await consumer.stop()


CLASSIC = "work"
"""Where unacknowledged messages are counted: of a quorum queue RabbitMQ 3.10 tells numbers that are up to 5 s old."""


async def unsettled(rabbit: RabbitNode, url: str, queue: str = CLASSIC) -> tuple[int, int]:
    """(ready, unacknowledged) as the broker counts them."""
    listed = await asyncio.to_thread(
        rabbit.ctl, "list_queues", "-p", url.rpartition("/")[2], "name", "messages_ready", "messages_unacknowledged"
    )
    for line in listed.splitlines():
        name, ready, unacknowledged = line.split("\t")
        if name == queue:
            return int(ready), int(unacknowledged)
    raise AssertionError(f"there is no queue {queue}")


def numbered(count: int, start: int = 0) -> list[bytes]:
    return [b"%d" % number for number in range(start, start + count)]


async def test_what_has_arrived_is_handled_together_in_order(
    amqp_url: str, outside: Bystander, clock: SetClock
) -> None:
    await declare_topology(outside.connection)
    await outside.publish_many(numbered(95), QUEUE)
    handler = Handler()
    handler.gate.clear()
    async with consuming(amqp_url, handler, clock) as consumer:
        await until(lambda: consumer._arrived.qsize() >= 10)
        handler.gate.set()
        await until(lambda: len(handler.handled) == 95)
    assert handler.handled == numbered(95)
    assert max(len(call) for call in handler.calls) == 10
    assert len(handler.calls) < 95
    await until(lambda: _has(outside, QUEUE, 0))


async def _has(outside: Bystander, queue: str, depth: int) -> bool:
    return await outside.depth(queue) == depth


async def test_a_message_alone_does_not_wait_for_others(amqp_url: str, outside: Bystander, clock: SetClock) -> None:
    handler = Handler()
    async with consuming(amqp_url, handler, clock):
        for number in range(3):
            await outside.publish_many([b"%d" % number], QUEUE)
            await until(lambda wanted=number + 1: len(handler.calls) == wanted)
    assert handler.calls == [[b"0"], [b"1"], [b"2"]]


async def test_a_message_comes_with_everything_it_was_sent_with(
    amqp_url: str, outside: Bystander, clock: SetClock
) -> None:
    seen: list[Incoming] = []

    async def handle(batch: Sequence[Incoming]) -> Awaitable[None]:
        seen.extend(batch)
        return _nothing()

    consumer = BatchConsumer(amqp_url, queue=QUEUE, name="test", handle=handle, batch_size=10, clock=clock)
    consumer.start()
    await until(lambda: consumer.is_alive)
    await outside.publish(
        b"x",
        exchange="notifications.direct",
        key="group",
        message_id="m-1",
        app_id="shop",
        message_type="t",
        content_type="text/plain",
        headers={"a": 1},
    )
    await outside.publish_many([b"bare"], QUEUE)
    await until(lambda: len(seen) == 2)
    await consumer.stop()
    first, bare = seen
    assert (first.body, first.exchange, first.routing_key) == (b"x", "notifications.direct", "group")
    assert (first.message_id, first.app_id, first.type) == ("m-1", "shop", "t")
    assert (first.content_type, first.headers) == ("text/plain", {"a": 1})
    assert not first.is_redelivered
    assert (bare.exchange, bare.routing_key, bare.app_id, bare.headers) == ("", QUEUE, None, {})


async def test_a_message_is_settled_only_after_the_rest_of_its_batch(
    amqp_url: str, outside: Bystander, rabbit: RabbitNode, clock: SetClock
) -> None:
    await outside.declare(CLASSIC)
    handler = Handler()
    published = asyncio.Event()

    async def publish() -> None:
        await published.wait()

    handler.rest = publish
    async with consuming(amqp_url, handler, clock, queue=CLASSIC):
        await outside.publish_many(numbered(3), CLASSIC)
        await until(lambda: len(handler.handled) == 3)
        # The next batch is taken while the rest of the first one is still under way.
        await outside.publish_many(numbered(1, start=3), CLASSIC)
        await until(lambda: len(handler.handled) == 4)
        assert await unsettled(rabbit, amqp_url) == (0, 4)
        published.set()

        async def is_settled() -> bool:
            return await unsettled(rabbit, amqp_url) == (0, 0)

        await until(is_settled)


async def test_a_rest_that_fails_is_logged_and_its_messages_are_settled(
    amqp_url: str, outside: Bystander, rabbit: RabbitNode, clock: SetClock
) -> None:
    """What the rest does is done again by the relay; the message itself is stored."""
    await outside.declare(CLASSIC)
    handler = Handler()

    async def fail() -> None:
        raise RuntimeError("no publisher")

    handler.rest = fail
    async with consuming(amqp_url, handler, clock, queue=CLASSIC) as consumer:
        await outside.publish_many(numbered(2), CLASSIC)

        async def is_settled() -> bool:
            return len(handler.handled) == 2 and await unsettled(rabbit, amqp_url) == (0, 0)

        await until(is_settled)
        assert consumer.is_alive


@pytest.mark.req("I17")
async def test_while_it_cannot_be_handled_it_stays_and_nothing_spins(
    amqp_url: str, outside: Bystander, rabbit: RabbitNode
) -> None:
    await outside.declare(CLASSIC)
    clock = SetClock(pace=0.01)
    handler = Handler()
    handler.failures_left = 1_000_000
    async with consuming(amqp_url, handler, clock, queue=CLASSIC) as consumer:
        before = len(clock.pauses_s)
        await outside.publish_many(numbered(5), CLASSIC)
        await until(lambda: len(clock.pauses_s) >= before + 8)
        assert await unsettled(rabbit, amqp_url) == (0, 5)
        assert consumer.is_alive
        handler.failures_left = 0
        await until(lambda: handler.handled == numbered(5))

        async def is_settled() -> bool:
            return await unsettled(rabbit, amqp_url) == (0, 0)

        await until(is_settled)
    # The pauses double from half a second to 5 s: two tries in the first second, then one every five.
    assert clock.pauses_s[before : before + 8] == [0.5, 1, 2, 4, 5, 5, 5, 5]


async def test_prefetch_bounds_what_one_worker_holds(
    amqp_url: str, outside: Bystander, rabbit: RabbitNode, clock: SetClock
) -> None:
    await outside.declare(CLASSIC)
    await outside.publish_many(numbered(60), CLASSIC)
    handler = Handler()
    handler.gate.clear()
    async with consuming(amqp_url, handler, clock, queue=CLASSIC, batch_size=10):

        async def is_full() -> bool:
            return await unsettled(rabbit, amqp_url) == (40, 20)

        await until(is_full)


@pytest.mark.req("I21")
@pytest.mark.parametrize("stands_by", [False, True])
async def test_stopping_finishes_what_is_in_hand_and_returns_the_rest_in_order(
    amqp_url: str, outside: Bystander, clock: SetClock, *, stands_by: bool
) -> None:
    await declare_topology(outside.connection)
    await outside.publish_many(numbered(30), QUEUE)
    handler, successor = Handler(), Handler()
    handler.gate.clear()
    async with contextlib.AsyncExitStack() as stack:
        consumer = await stack.enter_async_context(consuming(amqp_url, handler, clock, batch_size=5))
        await until(lambda: not consumer._idle.is_set())
        if stands_by:
            await stack.enter_async_context(consuming(amqp_url, successor, clock))
        stopping = asyncio.create_task(consumer.stop())
        await asyncio.sleep(0)
        handler.gate.set()
        await stopping
        assert 0 < len(handler.handled) <= 5
        if not stands_by:
            await until(lambda: _has(outside, QUEUE, 30 - len(handler.handled)))
            await stack.enter_async_context(consuming(amqp_url, successor, clock))
        await until(lambda: len(handler.handled) + len(successor.handled) == 30)
    assert handler.handled + successor.handled == numbered(30)


@pytest.mark.req("H09")
async def test_after_a_lost_connection_nothing_is_missing(
    amqp_url: str, outside: Bystander, rabbit: RabbitNode, clock: SetClock
) -> None:
    handler = Handler()
    vhost = amqp_url.rpartition("/")[2]
    async with consuming(amqp_url, handler, clock) as consumer:
        handler.gate.clear()
        await outside.publish_many(numbered(20), QUEUE)
        await until(lambda: consumer._arrived.qsize() > 0 or not consumer._idle.is_set())
        channel = consumer._channel
        await asyncio.to_thread(rabbit.ctl, "close_all_connections", "--vhost", vhost, "for a test")
        # It is back within milliseconds: what it has lost shows longer than that it was away.
        await until(lambda: consumer._channel is not channel)
        handler.gate.set()
        await until(lambda: set(handler.handled) == set(numbered(20)) and consumer.is_alive)
    # What was in hand when the connection went comes twice; nothing else does.
    assert len(handler.handled) <= 20 + 10


@pytest.mark.req("I13")
async def test_a_queue_deleted_under_the_consumer_is_there_again(
    amqp_url: str, outside: Bystander, clock: SetClock
) -> None:
    handler = Handler()
    async with consuming(amqp_url, handler, clock) as consumer:
        await outside.delete(QUEUE)
        await until(lambda: _has_consumer(outside), within_s=10)
        await until(lambda: consumer.is_alive)
        await outside.publish(b"again", exchange="notifications.direct", key="private")
        await until(lambda: handler.handled == [b"again"])


async def _has_consumer(outside: Bystander) -> bool:
    return await outside.consumers(QUEUE) == 1


@pytest.mark.req("I02")
@pytest.mark.req("I03")
async def test_a_message_that_kills_every_worker_ends_after_the_delivery_limit(
    amqp_url: str, outside: Bystander, clock: SetClock
) -> None:
    await declare_topology(outside.connection)
    await outside.publish(b"poison", exchange="notifications.direct", key="private", message_id="m-1")
    deliveries = 0
    async with outside.channel() as channel:
        await channel.basic_qos(prefetch_count=1)

        async def give_back(message: object) -> None:
            nonlocal deliveries
            deliveries += 1
            # As the broker itself does for a worker that died.
            await channel.basic_reject(message.delivery_tag, requeue=True)  # type: ignore[attr-defined]

        await channel.basic_consume(QUEUE, give_back)
        await until(lambda: _has(outside, INTAKE_POISON.name, 1))
    assert deliveries == DELIVERY_LIMIT + 1
    handler = Handler()
    async with consuming(amqp_url, handler, clock, queue=INTAKE_POISON.name):
        await until(lambda: handler.handled == [b"poison"])


async def test_one_consumer_works_and_the_other_stands_by(amqp_url: str, outside: Bystander, clock: SetClock) -> None:
    first, second = Handler(), Handler()
    async with consuming(amqp_url, second, clock) as active, consuming(amqp_url, first, clock):
        await outside.publish_many(numbered(20), QUEUE)
        await until(lambda: len(second.handled) == 20)
        assert first.handled == []
        await active.stop()
        await outside.publish_many(numbered(5, start=20), QUEUE)
        await until(lambda: first.handled == numbered(5, start=20))
