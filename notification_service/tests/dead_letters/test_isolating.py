"""A message no handler can take ends as a dead letter and holds up nobody; an absent database ends nothing (I02)."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Sequence

import pytest
from amqp import Bystander
from clocks import SetClock
from sqlalchemy import select
from waiting import until

from notification_service.broker.consumer import BatchConsumer, Incoming
from notification_service.broker.declare import declare_topology
from notification_service.broker.isolating import ATTEMPTS, Isolating
from notification_service.broker.publisher import Publisher
from notification_service.db.engine import Database
from notification_service.dead_letters.models import dead_letters
from notification_service.dead_letters.poison import PoisonHandler
from notification_service.errors import Unavailable
from shared_contracts.topology import DEAD, INTAKE


class Picky:
    """Takes everything but `bad`, which it trips over; is away for as long as told."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.published: list[bytes] = []
        self.alone_with_bad = 0
        self.away_for = 0

    async def __call__(self, batch: Sequence[Incoming]) -> Awaitable[None]:
        if self.away_for:
            self.away_for -= 1
            raise Unavailable("the database does not answer")
        bodies = [each.body for each in batch]
        if b"bad" in bodies:
            self.alone_with_bad += bodies == [b"bad"]
            raise ZeroDivisionError("nobody thought of this")
        self.taken += bodies
        return self._publish(bodies)

    async def _publish(self, bodies: list[bytes]) -> None:
        self.published += bodies


@contextlib.asynccontextmanager
async def consuming(url: str, handler: Picky, database: Database, clock: SetClock) -> AsyncIterator[None]:
    publisher = Publisher(url, name="test", clock=clock)
    publisher.start()
    poison = PoisonHandler(database, publisher, clock)
    handle = Isolating(handler, give_up=poison.give_up, clock=clock)
    consumer = BatchConsumer(url, queue=INTAKE.name, name="test", handle=handle, batch_size=10, clock=clock)
    consumer.start()
    try:
        yield
    finally:
        await consumer.stop()
        await publisher.close()


@pytest.mark.req("I02")
async def test_one_message_that_fails_every_time_is_given_up_alone(
    amqp_url: str, database: Database, outside: Bystander, clock: SetClock
) -> None:
    handler = Picky()
    await declare_topology(outside.connection)
    for body in (b"1", b"2", b"bad", b"3", b"4"):
        await outside.publish(body, exchange="notifications.direct", key="private", message_id=f"m-{body.decode()}")

    async with consuming(amqp_url, handler, database, clock):
        await until(lambda: handler.published == [b"1", b"2", b"3", b"4"])
        await until(lambda: _has(outside, DEAD.name, 1))
        await until(lambda: _has(outside, INTAKE.name, 0))

    assert handler.taken == [b"1", b"2", b"3", b"4"]
    assert handler.alone_with_bad in (ATTEMPTS, ATTEMPTS + 1)  # it may have been a batch of its own at first
    async with database.read() as connection:
        (letter,) = (await connection.execute(select(dead_letters))).all()
    assert (letter.reason, letter.attempts, bytes(letter.payload)) == ("attempts_exhausted", ATTEMPTS, b"bad")
    assert (letter.routing_key, letter.message_id) == ("private", "m-bad")
    assert "ZeroDivisionError" in letter.detail
    assert "nobody thought of this" not in letter.detail


async def test_what_is_away_is_waited_for(
    amqp_url: str, database: Database, outside: Bystander, clock: SetClock
) -> None:
    handler = Picky()
    handler.away_for = 2 * ATTEMPTS
    await declare_topology(outside.connection)
    await outside.publish(b"1", exchange="notifications.direct", key="private", message_id="m-1")
    async with consuming(amqp_url, handler, database, clock):
        await until(lambda: handler.published == [b"1"])
    async with database.read() as connection:
        assert (await connection.execute(select(dead_letters))).all() == []


async def _has(outside: Bystander, queue: str, count: int) -> bool:
    return await outside.depth(queue) == count
