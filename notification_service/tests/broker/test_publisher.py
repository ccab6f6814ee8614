"""Confirmed publishing: every message ends in one of four outcomes, and none of them is a guess (H03, H04, H05)."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from aiormq.exceptions import ChannelNotFoundEntity
from amqp import Bystander
from clocks import SetClock
from prometheus_client import REGISTRY
from tcp_proxy import proxy_to
from waiting import until

from herald_local.rabbitmq import RabbitNode
from notification_service.broker import publisher as publisher_module
from notification_service.broker.publisher import Outcome, Outgoing, Publisher

LIMIT = timedelta(seconds=20)


@contextlib.asynccontextmanager
async def publishing(url: str, clock: SetClock) -> AsyncIterator[Publisher]:
    publisher = Publisher(url, name="test", clock=clock)
    publisher.start()
    try:
        await publisher.link.wait_ready(LIMIT)
        yield publisher
    finally:
        await publisher.close()


def to(queue: str, number: int = 1, *, exchange: str = "", **fields: object) -> Outgoing:
    return Outgoing(exchange, queue, b"%d" % number, str(number), **fields)  # type: ignore[arg-type]


def count(outcome: str) -> float:
    return REGISTRY.get_sample_value("publish_total", {"outcome": outcome}) or 0


async def test_what_is_confirmed_is_in_the_queue_with_its_properties(
    amqp_url: str, outside: Bystander, clock: SetClock
) -> None:
    await outside.declare("q")
    before = count("ok")
    sent_at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    async with publishing(amqp_url, clock) as publisher:
        outcome = await publisher.publish(
            Outgoing(
                "",
                "q",
                b'{"a":1}',
                "id-1",
                type="notification",
                headers={"x-herald-seq": 5},
                app_id="shop",
                timestamp=sent_at,
                expiration=timedelta(seconds=90),
            )
        )
    assert outcome is Outcome.OK
    assert count("ok") == before + 1
    message = await outside.take("q")
    properties = message.header.properties
    assert message.body == b'{"a":1}'
    assert (properties.message_id, properties.message_type, properties.app_id) == ("id-1", "notification", "shop")
    assert (properties.content_type, properties.delivery_mode) == ("application/json", 2)
    assert (properties.headers, properties.expiration) == ({"x-herald-seq": 5}, "90000")
    assert properties.timestamp == sent_at


async def test_an_expiration_in_the_past_is_the_shortest_there_is(
    amqp_url: str, outside: Bystander, clock: SetClock
) -> None:
    await outside.declare("q", dead_letter_exchange="", dead_letter_routing_key="late")
    await outside.declare("late")
    async with publishing(amqp_url, clock) as publisher:
        assert await publisher.publish(to("q", expiration=timedelta(seconds=-5), persistent=False)) is Outcome.OK

    async def is_late() -> bool:
        return await outside.depth("late") == 1

    await until(is_late)
    message = await outside.take("late")
    assert message.header.properties.headers["x-death"][0]["reason"] == "expired"
    assert message.header.properties.headers["x-death"][0]["original-expiration"] == "1"


@pytest.mark.req("H03")
async def test_a_message_no_queue_takes_is_returned_and_the_others_are_not(
    amqp_url: str, outside: Bystander, clock: SetClock
) -> None:
    await outside.declare("q")
    before = count("returned")
    async with publishing(amqp_url, clock) as publisher:
        outcomes = await publisher.publish_all([to("q", 1), to("nowhere", 2), to("q", 3), to("nowhere", 4)])
        assert outcomes == [Outcome.OK, Outcome.RETURNED, Outcome.OK, Outcome.RETURNED]
        # Not mandatory: nobody has to listen.
        assert await publisher.publish(to("nowhere", 5, mandatory=False)) is Outcome.OK
        assert publisher.link.is_ready
    assert count("returned") == before + 2
    assert [message.body for message in await outside.take_all("q")] == [b"1", b"3"]


@pytest.mark.req("H04")
async def test_what_the_broker_refuses_is_told_and_can_be_sent_again(
    amqp_url: str, outside: Bystander, clock: SetClock
) -> None:
    await outside.declare("small", max_length=1, overflow="reject-publish")
    before = count("nack")
    async with publishing(amqp_url, clock) as publisher:
        assert await publisher.publish(to("small", 1)) is Outcome.OK
        assert await publisher.publish_all([to("small", 2), to("small", 3)]) == [Outcome.NACK, Outcome.NACK]
        assert count("nack") == before + 2
        assert (await outside.take("small")).body == b"1"
        assert await publisher.publish(to("small", 2)) is Outcome.OK
        assert (await outside.take("small")).body == b"2"


async def test_many_are_published_in_order_without_waiting_for_each(
    amqp_url: str, outside: Bystander, clock: SetClock
) -> None:
    await outside.declare("q")
    async with publishing(amqp_url, clock) as publisher:
        assert await publisher.publish_all([]) == []
        outcomes = await publisher.publish_all([to("q", number) for number in range(1500)])
    assert set(outcomes) == {Outcome.OK}
    async with outside.channel() as channel:
        bodies: list[bytes | None] = []

        async def note(message: object) -> None:
            bodies.append(getattr(message, "body", None))

        await channel.basic_consume("q", note, no_ack=True)
        await until(lambda: len(bodies) == 1500)
    assert bodies == [b"%d" % number for number in range(1500)]


@pytest.mark.req("H05")
async def test_a_silent_broker_is_waited_for_and_then_the_outcome_is_unknown(
    amqp_url: str, outside: Bystander, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher_module, "CONFIRM_LIMIT", timedelta(seconds=0.3))
    await outside.declare("q")
    before = count("timeout")
    async with proxy_to(amqp_url) as proxy, publishing(proxy.through(amqp_url), clock) as publisher:
        proxy.freeze()
        started = time.monotonic()
        assert await publisher.publish_all([to("q", 1), to("q", 2)]) == [Outcome.TIMEOUT, Outcome.TIMEOUT]
        assert 0.25 < time.monotonic() - started < 5
        assert count("timeout") == before + 2
        proxy.thaw()
        monkeypatch.undo()
        # Published again with the same identity: at worst it is there twice, and is known by it.
        await publisher.link.wait_ready(LIMIT)
        await until(lambda: publisher.link.is_ready)
        assert await publisher.publish(to("q", 1)) is Outcome.OK
    found = [message.header.properties.message_id for message in await outside.take_all("q")]
    assert set(found) <= {"1", "2"}
    assert 1 <= found.count("1") <= 2


def test_the_limit_is_ten_seconds() -> None:
    assert publisher_module.CONFIRM_LIMIT.total_seconds() == 10


async def test_a_lost_connection_ends_what_is_in_flight_as_unknown(
    amqp_url: str, outside: Bystander, clock: SetClock
) -> None:
    await outside.declare("q")
    async with proxy_to(amqp_url) as proxy, publishing(proxy.through(amqp_url), clock) as publisher:
        proxy.freeze()
        waiting = asyncio.create_task(publisher.publish_all([to("q", number) for number in range(50)]))
        await asyncio.sleep(0)
        await proxy.refuse()
        proxy.thaw()
        assert set(await asyncio.wait_for(waiting, 20)) == {Outcome.TIMEOUT}
        # Nothing to publish on: the answer comes at once.
        await until(lambda: not publisher.link.is_ready)
        assert await publisher.publish(to("q")) is Outcome.TIMEOUT
        await proxy.listen()
        await publisher.link.wait_ready(LIMIT)
        assert await publisher.publish(to("q")) is Outcome.OK


async def test_a_channel_the_broker_closed_is_opened_again(amqp_url: str, outside: Bystander, clock: SetClock) -> None:
    await outside.declare("q")
    async with publishing(amqp_url, clock) as publisher:
        # 404: the broker closes the channel a message for a missing exchange came on.
        outcomes = await publisher.publish_all([to("q", 1, exchange="no-such-exchange"), to("q", 2)])
        assert Outcome.OK not in outcomes[:1]
        await until(lambda: publisher.link.is_ready and publisher._channel is not None)

        async def is_taken() -> bool:
            return await publisher.publish(to("q", 3)) is Outcome.OK

        await until(is_taken)
    with pytest.raises(ChannelNotFoundEntity):
        async with outside.channel() as channel:
            await channel.queue_declare("no-such-queue", passive=True)


async def test_a_caller_that_gives_up_is_not_told_a_lie(amqp_url: str, clock: SetClock, outside: Bystander) -> None:
    await outside.declare("q")
    async with proxy_to(amqp_url) as proxy, publishing(proxy.through(amqp_url), clock) as publisher:
        proxy.freeze()
        waiting = asyncio.create_task(publisher.publish(to("q")))
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        proxy.thaw()


async def test_before_the_first_connection_nothing_is_promised(clock: SetClock) -> None:
    publisher = Publisher("amqp://herald:x@127.0.0.1:1/", name="test", clock=clock)
    assert await publisher.publish(to("q")) is Outcome.TIMEOUT
    await publisher.close()


@pytest.mark.req("H06")
async def test_a_memory_alarm_blocks_publishing_and_is_seen(tmp_path_factory: pytest.TempPathFactory) -> None:
    """On a node of its own: the alarm stops every publisher of the node."""
    node = RabbitNode(tmp_path_factory.mktemp("alarm") / "rabbitmq")
    await asyncio.to_thread(node.start)
    clock = SetClock()
    try:
        async with publishing(node.url, clock) as publisher:
            assert not publisher.link.is_blocked
            await asyncio.to_thread(node.ctl, "set_vm_memory_high_watermark", "0")
            # The broker tells a connection when it publishes next.
            blocked = asyncio.create_task(publisher.publish(to("q")))
            await until(lambda: publisher.link.is_blocked)
            assert publisher.link.is_ready
            await asyncio.to_thread(node.ctl, "set_vm_memory_high_watermark", "0.4")
            await until(lambda: not publisher.link.is_blocked)
            # Blocked, not lost: it goes through as soon as the alarm is over.
            assert await asyncio.wait_for(blocked, 20) in (Outcome.RETURNED, Outcome.TIMEOUT)
            assert await publisher.publish(to("q", 2)) is Outcome.RETURNED
    finally:
        await asyncio.to_thread(node.stop)
