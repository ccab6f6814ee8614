"""An erasure from the event to its end, with a real database and a real broker."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from uuid import UUID, uuid4

import orjson
import pytest
from amqp import Bystander
from clocks import SetClock
from mail_box import Mail
from sqlalchemy import select

from notification_service.broker.publisher import Publisher
from notification_service.broker.purge import delete_queue, purge_queue
from notification_service.contacts.addresses import hash_address
from notification_service.contacts.models import suppressions
from notification_service.contacts.suppressions import Suppression, suppress_addresses
from notification_service.db.base import AnyRow
from notification_service.db.engine import Database
from notification_service.entrypoints.personal_data import PERSONAL_DATA
from notification_service.errors import Unavailable
from notification_service.identity.models import audit_outbox
from notification_service.identity.personal_data import Subject
from notification_service.mailbox.models import streams
from notification_service.personal_data.erasure import SWEEP_AFTER, Eraser, request_erasure
from notification_service.personal_data.models import erasures
from shared_contracts.topology import DEAD, user_queue_name


@contextlib.asynccontextmanager
async def publisher_at(url: str, clock: SetClock) -> AsyncIterator[Publisher]:
    publisher = Publisher(url, name="test", clock=clock)
    publisher.start()
    try:
        yield publisher
    finally:
        await publisher.close()


def make_eraser(database: Database, publisher: Publisher, clock: SetClock) -> Eraser:
    async def purge(subjects: Sequence[Subject]) -> int:
        names = [each.encode() for subject in subjects for each in subject.quoted_references]
        connection = publisher.link.connection
        return await purge_queue(connection, DEAD.name, lambda body: not any(name in body for name in names))

    async def delete(user_id: UUID) -> None:
        await delete_queue(publisher.link.connection, user_queue_name(user_id))

    return Eraser(database=database, parts=PERSONAL_DATA, delete_queue=delete, purge_queues=purge, clock=clock)


async def find(database: Database, user_id: UUID) -> AnyRow:
    async with database.read() as connection:
        return (await connection.execute(select(erasures).where(erasures.c.user_id == user_id))).one()


async def lines(database: Database) -> list[dict[str, object]]:
    async with database.read() as connection:
        return list((await connection.execute(select(audit_outbox.c.event).order_by(audit_outbox.c.id))).scalars())


@pytest.mark.req("I14")
async def test_an_erasure_from_asking_to_its_end(
    database: Database, amqp_url: str, outside: Bystander, clock: SetClock
) -> None:
    mail = Mail(database)
    gone, other = await mail.make_users(2)
    await mail.keep(gone, other)
    async with publisher_at(amqp_url, clock) as publisher:
        await publisher.link.wait_ready(timedelta(seconds=20))
        await outside.declare(DEAD.name, queue_type="quorum")
        for user_id in (gone, other):
            await outside.declare(user_queue_name(user_id), queue_type="classic", single_active_consumer=True)
            await outside.publish(b"{}", key=user_queue_name(user_id))
        copies = [orjson.dumps({"recipients": {"users": [str(each)]}}) for each in (other, gone, other, gone)]
        await outside.publish_many(copies, DEAD.name)
        async with database.write() as connection:
            await request_erasure(connection, gone, "default", clock=clock)
            await request_erasure(connection, gone, "default", clock=clock)
        eraser = make_eraser(database, publisher, clock)

        assert await eraser.sweep() == 1

        assert await outside.depth(user_queue_name(gone)) == -1
        assert await outside.depth(user_queue_name(other)) == 1
        assert [message.body for message in await outside.take_all(DEAD.name)] == [copies[0], copies[2]]
        row = await find(database, gone)
        assert row.sweeps == 1
        assert row.report["mailbox_items"] == 1
        (line,) = await lines(database)
        assert (line["action"], line["subject_id"], line["actor_type"]) == ("user.data_erased", str(gone), "system")
        assert line["details"] == row.report

        # Something arrives late: it is found by the next sweep, which is not due before its time.
        assert await eraser.sweep() == 0
        await mail.keep(gone)
        clock.advance(SWEEP_AFTER[0].total_seconds())
        assert await eraser.sweep() == 1
        clock.advance(SWEEP_AFTER[1].total_seconds())
        assert await eraser.sweep() == 1

    row = await find(database, gone)
    assert (row.sweeps, row.next_sweep_at, row.external_id) == (3, None, None)
    assert row.report["mailbox_items"] == 2
    assert len(await lines(database)) == 2
    async with database.read() as connection:
        assert list((await connection.execute(select(streams.c.user_id))).scalars()) == [other]


async def test_two_erasers_share_the_work(database: Database, amqp_url: str, clock: SetClock) -> None:
    async with publisher_at(amqp_url, clock) as publisher:
        await publisher.link.wait_ready(timedelta(seconds=20))
        async with database.write() as connection:
            for _ in range(30):
                await request_erasure(connection, uuid4(), "default", clock=clock)
        swept = await asyncio.gather(*(make_eraser(database, publisher, clock).sweep() for _ in range(2)))
    assert sum(swept) == 30
    assert len(await lines(database)) == 30


async def test_a_broker_that_is_away_delays_its_own_part_only(database: Database, clock: SetClock) -> None:
    mail = Mail(database)
    (gone,) = await mail.make_users(1)
    await mail.keep(gone)
    publisher = Publisher("amqp://x:y@127.0.0.1:1/", name="test", clock=clock)
    async with database.write() as connection:
        await request_erasure(connection, gone, "default", clock=clock)
    eraser = make_eraser(database, publisher, clock)

    assert await eraser.sweep() == 1

    row = await find(database, gone)
    assert (row.sweeps, row.report["mailbox_items"]) == (0, 1)
    assert row.next_sweep_at > clock.now()
    clock.advance(60)
    assert await eraser.sweep() == 1
    assert len(await lines(database)) == 1


async def test_going_through_a_queue_that_is_not_there(amqp_url: str, clock: SetClock) -> None:
    with pytest.raises(Unavailable):
        await purge_queue(None, "x", lambda _: True)
    with pytest.raises(Unavailable):
        await delete_queue(None, "x")
    async with publisher_at(amqp_url, clock) as publisher:
        await publisher.link.wait_ready(timedelta(seconds=20))
        assert await purge_queue(publisher.link.connection, "not-there", lambda _: True) == 0
        await delete_queue(publisher.link.connection, "not-there")


@pytest.mark.req("X-15")
async def test_a_suppressed_address_stays_suppressed_as_a_hash(database: Database, clock: SetClock) -> None:
    gone, other = uuid4(), uuid4()
    listed = [
        Suppression("default", "email", f"{name}@example.org", "complaint", user_id)
        for name, user_id in (("ada", gone), ("ben", other))
    ]
    contact = next(part for part in PERSONAL_DATA if part.name == "contacts")
    async with database.write() as connection:
        await suppress_addresses(connection, listed, now=clock.now())
        assert (await contact.erase(connection, Subject(gone, "default", None)))["suppressions"] == 1
        # What is found once is not found again: the sweeps after it have nothing to tell.
        assert (await contact.erase(connection, Subject(gone, "default", None)))["suppressions"] == 0
        rows = {row.address_hash: row for row in await connection.execute(select(suppressions))}
    assert len(rows) == 2
    erased, kept = (rows[hash_address("email", f"{name}@example.org")] for name in ("ada", "ben"))
    assert (erased.user_id, erased.hint, erased.reason) == (None, "", "complaint")
    assert kept.user_id == other
    assert kept.hint
