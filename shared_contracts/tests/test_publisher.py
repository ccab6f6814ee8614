"""The publisher backends use, on a real broker: what it returns was taken, what it raises says what is known."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel

from shared_contracts.publisher import NotificationPublisher, PublishFailed
from shared_contracts.requests import NotificationRequest, Recipients
from shared_contracts.topology import NOTIFICATIONS_DIRECT, NOTIFICATIONS_FANOUT

USER = str(uuid4())


def request(**fields: Any) -> NotificationRequest:
    return NotificationRequest(**{"title": "Hello", "recipients": Recipients(users=(USER,)), **fields})


@pytest.fixture
async def channel(amqp_url: str) -> AsyncIterator[AbstractChannel]:
    connection = await aio_pika.connect(amqp_url)
    channel = await connection.channel()
    for exchange in (NOTIFICATIONS_DIRECT, NOTIFICATIONS_FANOUT):
        await channel.declare_exchange(exchange.name, exchange.type, durable=True)
    yield channel
    await connection.close()


async def bind(channel: AbstractChannel, name: str, exchange: str, key: str = "", **arguments: Any) -> Any:
    queue = await channel.declare_queue(name, durable=True, arguments=arguments or None)
    await queue.bind(exchange, key)
    return queue


async def test_what_it_returns_is_in_the_queue_as_the_contract_says(channel: AbstractChannel, amqp_url: str) -> None:
    queue = await bind(channel, "q", "notifications.direct", "private")
    async with NotificationPublisher(amqp_url, source="shop") as publisher:
        message_id = await publisher.publish(request(body="b"))
        given = uuid4()
        assert await publisher.publish(request(), message_id=given) == given
    first, second = await queue.get(), await queue.get()
    await first.ack()
    await second.ack()
    assert (UUID(first.message_id), UUID(second.message_id)) == (message_id, given)
    assert (first.app_id, first.content_type, first.delivery_mode) == ("shop", "application/json", 2)
    assert first.timestamp is not None
    assert json.loads(first.body)["recipients"]["users"] == [USER]
    # Read back as Herald reads it.
    assert NotificationRequest.model_validate_json(first.body).body == "b"


@pytest.mark.parametrize(
    ("fields", "routing_key", "exchange", "key"),
    [
        ({}, None, "notifications.direct", "private"),
        ({"recipients": Recipients(groups=(uuid4(),))}, None, "notifications.direct", "group"),
        ({"event_type": "order.shipped"}, None, "notifications.direct", "event"),
        ({"recipients": Recipients(roles=("staff",))}, None, "notifications.direct", "event"),
        ({"recipients": Recipients(all=True)}, None, "notifications.fanout", ""),
        ({}, "event", "notifications.direct", "event"),
    ],
)
async def test_each_goes_where_its_recipients_say(
    channel: AbstractChannel, amqp_url: str, *, fields: dict[str, Any], routing_key: str | None, exchange: str, key: str
) -> None:
    queue = await bind(channel, "q", exchange, key)
    async with NotificationPublisher(amqp_url, source="shop") as publisher:
        await publisher.publish(request(**fields), routing_key=routing_key)
    message = await queue.get()
    await message.ack()
    assert (message.exchange, message.routing_key) == (exchange, key)


async def test_many_at_once_share_one_connection(channel: AbstractChannel, amqp_url: str) -> None:
    queue = await bind(channel, "q", "notifications.direct", "private")
    async with NotificationPublisher(amqp_url, source="shop") as publisher:
        ids = await asyncio.gather(*(publisher.publish(request()) for _ in range(200)))
    assert len(set(ids)) == 200
    assert (await channel.declare_queue("q", passive=True)).declaration_result.message_count == 200
    await queue.purge()


@pytest.mark.req("H03")
async def test_what_no_queue_takes_is_an_error_and_did_not_arrive(channel: AbstractChannel, amqp_url: str) -> None:
    async with NotificationPublisher(amqp_url, source="shop") as publisher:
        with pytest.raises(PublishFailed) as failed:
            await publisher.publish(request())
        assert not failed.value.may_have_arrived
        # The publisher goes on.
        await bind(channel, "q", "notifications.direct", "private")
        await publisher.publish(request())


@pytest.mark.req("H04")
async def test_what_the_broker_refuses_is_an_error(channel: AbstractChannel, amqp_url: str) -> None:
    arguments = {"x-max-length": 1, "x-overflow": "reject-publish"}
    await bind(channel, "q", "notifications.direct", "private", **arguments)
    async with NotificationPublisher(amqp_url, source="shop") as publisher:
        await publisher.publish(request())
        with pytest.raises(PublishFailed) as failed:
            await publisher.publish(request())
        assert not failed.value.may_have_arrived


async def test_a_request_that_is_too_long_never_leaves(amqp_url: str) -> None:
    async with NotificationPublisher(amqp_url, source="shop") as publisher:
        with pytest.raises(ValueError, match="at most 65536"):
            await publisher.publish(request(body="x" * 70_000))


@pytest.mark.req("H05")
async def test_a_broker_that_says_nothing_is_given_up_and_the_outcome_is_unknown() -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        publisher = NotificationPublisher(
            f"amqp://herald:x@127.0.0.1:{port}/", source="shop", confirm_timeout=timedelta(seconds=0.2)
        )
        with pytest.raises(PublishFailed) as failed:
            await publisher.publish(request())
        assert failed.value.may_have_arrived
        await publisher.close()


async def test_nobody_there() -> None:
    publisher = NotificationPublisher("amqp://herald:x@127.0.0.1:1/", source="shop")
    with pytest.raises(PublishFailed):
        await publisher.publish(request())
    await publisher.close()


@pytest.mark.req("H09")
async def test_after_a_lost_connection_it_connects_again(channel: AbstractChannel, amqp_url: str, rabbit: Any) -> None:
    await bind(channel, "q", "notifications.direct", "private")
    async with NotificationPublisher(amqp_url, source="shop") as publisher:
        await publisher.publish(request())
        connection = publisher._connection
        assert connection is not None
        await connection.close()
        await publisher.publish(request())
        assert publisher._connection is not connection
