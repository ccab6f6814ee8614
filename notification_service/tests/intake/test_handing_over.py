"""What is accepted while the broker is away is not overtaken by what is accepted afterwards (H02)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from amqp import Bystander
from clocks import SetClock
from tcp_proxy import TcpProxy, proxy_to
from waiting import until

from notification_service.broker.declare import declare_topology
from notification_service.broker.publisher import Outgoing, Publisher
from notification_service.intake.handing_over import HandingOver

LIMIT = timedelta(seconds=30)
QUEUE = "what-the-intake-gets"


def numbered(first: int, last: int) -> list[Outgoing]:
    return [
        Outgoing(exchange="notifications.direct", routing_key="private", body=b"%d" % number, message_id=str(number))
        for number in range(first, last + 1)
    ]


@asynccontextmanager
async def publishing(proxy: TcpProxy, amqp_url: str) -> AsyncIterator[Publisher]:
    publisher = Publisher(proxy.through(amqp_url), name="api", clock=SetClock(pace=0.1))
    publisher.start()
    await publisher.link.wait_ready(LIMIT)
    try:
        yield publisher
    finally:
        await publisher.close()


async def read_order(outside: Bystander, last: int) -> list[int]:
    """The numbers the intake gets, in order of their first coming, once the last one is there."""
    found: list[int] = []

    async def has_come() -> bool:
        found.extend(int(message.body) for message in await outside.take_all(QUEUE))
        return last in found

    await until(has_come, within_s=60)
    return list(dict.fromkeys(found))


@pytest.mark.req("H02")
@pytest.mark.parametrize("how", ["refused", "cut"])
async def test_the_order_of_acceptance_outlives_an_outage(amqp_url: str, outside: Bystander, how: str) -> None:
    await declare_topology(outside.connection)
    await outside.declare(QUEUE, exchange="notifications.direct", key="private")
    async with proxy_to(amqp_url) as proxy, publishing(proxy, amqp_url) as publisher:
        handing_over = HandingOver(publisher, SetClock(pace=0.1))
        for number in range(1, 11):
            handing_over.add(numbered(number, number))
        if how == "refused":
            await proxy.refuse()
        else:
            proxy.cut()
        await until(lambda: _is_ready(publisher, ready=False))
        for number in range(11, 600, 7):
            handing_over.add(numbered(number, number + 6))
        if how == "refused":
            await proxy.listen()
        await publisher.link.wait_ready(LIMIT)
        # Accepted now, and not one of those that wait is overtaken.
        handing_over.add(numbered(606, 700))
        assert await read_order(outside, 700) == list(range(1, 606)) + list(range(606, 701))
        # Back to normal: nothing is kept, and what comes now goes at once.
        handing_over.add(numbered(701, 702))
        assert await read_order(outside, 702) == [701, 702]


async def _is_ready(publisher: Publisher, *, ready: bool) -> bool:
    return publisher.link.is_ready is ready


async def test_what_is_too_much_is_left_to_the_relay(amqp_url: str, outside: Bystander) -> None:
    await declare_topology(outside.connection)
    await outside.declare(QUEUE, exchange="notifications.direct", key="private")
    async with proxy_to(amqp_url) as proxy, publishing(proxy, amqp_url) as publisher:
        handing_over = HandingOver(publisher, SetClock(pace=0.1), max_bytes=20 * 1027)
        await proxy.refuse()
        await until(lambda: _is_ready(publisher, ready=False))
        handing_over.add(numbered(1, 15))
        await until(lambda: _is_catching_up(handing_over))
        handing_over.add(numbered(16, 30))
        await proxy.listen()
        assert await read_order(outside, 20) == list(range(1, 21))
        await until(lambda: _is_catching_up(handing_over, wanted=False))
        handing_over.add(numbered(31, 31))
        assert await read_order(outside, 31) == [31]


async def _is_catching_up(handing_over: HandingOver, *, wanted: bool = True) -> bool:
    return handing_over._is_catching_up is wanted
