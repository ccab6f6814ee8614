"""What a crash left is found and published again, by one relay at a time (H01, H03, H13, H14)."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from amqp import Bystander
from clocks import SetClock
from mail_box import START, Mail
from prometheus_client import REGISTRY
from sqlalchemy import func, select, update
from waiting import until

from notification_service.broker.declare import declare_topology
from notification_service.broker.link import open_channel
from notification_service.broker.publisher import Publisher
from notification_service.broker.user_queue_frames import declare_user_queues
from notification_service.db.engine import Database
from notification_service.dispatch.dispatcher import Dispatched, Dispatcher
from notification_service.dispatch.marks import DispatchMarks
from notification_service.dispatch.relay import Relay
from notification_service.entrypoints.mailbox_port import KeptPort
from notification_service.errors import Unavailable
from notification_service.mailbox.live_broadcasts import LiveBroadcasts
from notification_service.mailbox.models import streams
from notification_service.mailbox.resume import clear_queue_marks
from notification_service.notifications.entity import EventTypeDefaults, Notification, Sender, make_notification
from notification_service.notifications.models import notifications
from notification_service.notifications.repository import insert_accepted
from shared_contracts import headers
from shared_contracts.ids import new_id
from shared_contracts.requests import Kind, NotificationRequest, Recipients
from shared_contracts.topology import user_queue_name

LIMIT = timedelta(seconds=30)
GRACE = timedelta(seconds=10)


class Scheduler:
    """What the scheduler process runs: a relay with its own publisher and marks."""

    def __init__(self, url: str, database: Database, clock: SetClock, name: str = "scheduler") -> None:
        self.publisher = Publisher(url, name=name, clock=clock)
        self.marks = DispatchMarks(database, clock, clear_queue_marks)
        self.relay = Relay(
            database=database,
            publisher=self.publisher,
            dispatcher=Dispatcher(self.publisher, clock),
            marks=self.marks,
            kept=KeptPort(LiveBroadcasts()),
            clock=clock,
            interval=timedelta(milliseconds=50),
            hold=timedelta(minutes=1),
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Scheduler]:
        self.publisher.start()
        self.marks.start()
        await self.publisher.link.wait_ready(LIMIT)
        try:
            yield self
        finally:
            await self.marks.stop()
            await self.publisher.close()


def accepted(count: int, *, sender: UUID | None = None, **fields: Any) -> list[Notification]:
    """Accepted over REST a while ago, one a millisecond, and never handed over."""
    return [
        make_notification(
            NotificationRequest(title=f"{number}", recipients=Recipients(users=(str(uuid4()),)), **fields),
            notification_id=new_id(),
            kind=Kind.PRIVATE,
            sender=Sender(sender or uuid4(), "ada"),
            now=START + timedelta(milliseconds=number),
            defaults=EventTypeDefaults(),
        )
        for number in range(count)
    ]


async def store(database: Database, waiting: list[Notification], *, relay_after: Any = START + GRACE) -> None:
    async with database.write() as connection:
        for start in range(0, len(waiting), 1000):
            await insert_accepted(connection, waiting[start : start + 1000], relay_after=relay_after)


async def count_pending(database: Database) -> int:
    async with database.read() as connection:
        query = select(func.count()).where(notifications.c.dispatched_at.is_(None))
        return int((await connection.execute(query)).scalar_one())


async def consume_all(outside: Bystander, queue: str, count: int) -> list[Any]:
    taken: list[Any] = []
    async with outside.channel() as channel:

        async def note(message: Any) -> None:
            taken.append(message)

        await channel.basic_consume(queue, note, no_ack=True)
        await until(lambda: len(taken) >= count, within_s=60)
    return taken


async def make_queue(outside: Bystander, mail: Mail, user_id: UUID) -> None:
    """As if a device of the user were connected: the queue exists, and the mailbox knows."""
    channel = await open_channel(outside.connection)
    await declare_user_queues(channel, [user_id])
    await channel.close()
    await mail.open(user_id)


@pytest.mark.req("H01")
async def test_what_was_never_handed_over_reaches_the_intake_as_it_was_accepted(
    amqp_url: str, outside: Bystander, database: Database, clock: SetClock
) -> None:
    await declare_topology(outside.connection)
    sender = uuid4()
    waiting = accepted(3, sender=sender, ttl_seconds=365 * 24 * 3600)
    scheduled = accepted(1, deliver_at=clock.now() + timedelta(days=1))
    await store(database, [*waiting, *scheduled])
    async with Scheduler(amqp_url, database, clock).running() as scheduler:
        # What lies ahead is neither due nor counted as waiting.
        async with database.write() as connection:
            await connection.execute(
                update(notifications)
                .where(notifications.c.id == scheduled[0].id)
                .values(relay_after=scheduled[0].deliver_at)
            )
        assert await scheduler.relay.sweep() == 3
        assert REGISTRY.get_sample_value("outbox_pending") == 3
        assert (REGISTRY.get_sample_value("outbox_oldest_seconds") or 0) > 24 * 3600
        # Claimed: nobody takes them again while they may be on their way.
        assert await scheduler.relay.sweep() == 0
    messages = await consume_all(outside, "intake", 3)
    assert [message.header.properties.message_id for message in messages] == [str(each.id) for each in waiting]
    properties = messages[0].header.properties
    assert properties.headers[headers.SENDER_ID] == str(sender)
    assert properties.headers[headers.SENDER_NAME] == "ada"
    assert properties.headers[headers.ACCEPTED_AT] == waiting[0].created_at.isoformat()


@pytest.mark.req("H03")
async def test_what_no_queue_takes_stays_and_comes_again(amqp_url: str, outside: Bystander, database: Database) -> None:
    clock = SetClock(pace=0.1)
    await declare_topology(outside.connection)
    await outside.unbind("intake", "notifications.direct", "private")
    await store(database, accepted(2))
    async with Scheduler(amqp_url, database, clock).running() as scheduler:
        assert await scheduler.relay.sweep() == 2
        assert await count_pending(database) == 2
        async with outside.channel() as channel:
            await channel.queue_bind("intake", "notifications.direct", "private")
        clock.advance(3600)
        assert await scheduler.relay.sweep() == 2
    assert len(await consume_all(outside, "intake", 2)) == 2


async def test_kept_items_are_published_again_with_their_numbers(
    amqp_url: str, outside: Bystander, database: Database, clock: SetClock
) -> None:
    await declare_topology(outside.connection)
    mail = Mail(database)
    ada, bob = await mail.make_users(2)
    await make_queue(outside, mail, ada)
    for _ in range(3):
        await mail.keep(ada, bob)  # bob never connected: held in the mailbox, which is all there is to do
    broadcast = await mail.broadcast()
    async with outside.channel() as channel:
        await channel.queue_declare("node.1")
        await channel.queue_bind("node.1", "delivery.fanout")
    async with Scheduler(amqp_url, database, clock).running() as scheduler:
        assert await scheduler.relay.sweep() == 4
        await until(lambda: _is_pending(database, 0))
    messages = await consume_all(outside, user_queue_name(ada), 3)
    assert [message.header.properties.headers[headers.SEQ] for message in messages] == [1, 2, 3]
    (shared,) = await consume_all(outside, "node.1", 1)
    assert shared.header.properties.headers == {
        headers.SEQ: broadcast.seq,
        headers.TENANT: broadcast.notification.tenant,
    }


async def _is_pending(database: Database, count: int) -> bool:
    return await count_pending(database) == count


async def test_a_queue_that_turns_out_to_be_gone_is_forgotten(
    amqp_url: str, outside: Bystander, database: Database, clock: SetClock
) -> None:
    await declare_topology(outside.connection)
    mail = Mail(database)
    (ada,) = await mail.make_users(1)
    await make_queue(outside, mail, ada)
    await mail.keep(ada)
    await outside.delete(user_queue_name(ada))
    async with Scheduler(amqp_url, database, clock).running() as scheduler:
        assert await scheduler.relay.sweep() == 1
        await until(lambda: _is_pending(database, 0))
    async with database.read() as connection:
        declared = (await connection.execute(select(streams.c.queue_declared))).scalar_one()
    assert not declared


@pytest.mark.req("H02")
async def test_without_a_broker_nothing_is_claimed(database: Database, clock: SetClock) -> None:
    await store(database, accepted(2))
    scheduler = Scheduler("amqp://herald:x@127.0.0.1:1/", database, clock)
    assert await scheduler.relay.sweep() == 0
    assert REGISTRY.get_sample_value("outbox_pending") == 2
    async with database.read() as connection:
        assert set((await connection.execute(select(notifications.c.relay_after))).scalars()) == {START + GRACE}


@pytest.mark.req("H13")
async def test_killed_between_confirm_and_mark_it_publishes_again_with_the_same_numbers(
    amqp_url: str, outside: Bystander, database: Database
) -> None:
    clock = SetClock(pace=0.1)
    await declare_topology(outside.connection)
    mail = Mail(database)
    (ada,) = await mail.make_users(1)
    await make_queue(outside, mail, ada)
    await mail.keep_many(ada, 5)
    first = Scheduler(amqp_url, database, clock)
    first.publisher.start()  # its marks never run: as if it died with what it knew
    await first.publisher.link.wait_ready(LIMIT)
    assert await first.relay.sweep() == 5
    await first.publisher.close()
    clock.advance(3600)
    async with Scheduler(amqp_url, database, clock).running() as second:
        assert await second.relay.sweep() == 5
        await until(lambda: _is_pending(database, 0))
    messages = await consume_all(outside, user_queue_name(ada), 10)
    assert [message.header.properties.headers[headers.SEQ] for message in messages] == [1, 2, 3, 4, 5] * 2


@pytest.mark.req("H14")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("migrated_url", ["postgresql"], indirect=True)
async def test_two_relays_send_ten_thousand_once_each_and_in_order(
    amqp_url: str, outside: Bystander, migrated_url: str
) -> None:
    await declare_topology(outside.connection)
    clock = SetClock(pace=0.1)
    senders = [uuid4() for _ in range(20)]
    waiting = accepted(10_000)
    waiting = [
        make_notification(
            NotificationRequest(title="t", recipients=each.recipients),
            notification_id=each.id,
            kind=Kind.PRIVATE,
            sender=Sender(senders[number % 20]),
            now=each.created_at,
            defaults=EventTypeDefaults(),
        )
        for number, each in enumerate(waiting)
    ]
    databases = [Database(migrated_url) for _ in range(2)]
    await store(databases[0], waiting)
    async with contextlib.AsyncExitStack() as stack:
        relays = [
            (await stack.enter_async_context(Scheduler(amqp_url, database, clock, f"relay-{number}").running())).relay
            for number, database in enumerate(databases)
        ]
        sweeping = [asyncio.create_task(relay.run()) for relay in relays]
        await until(lambda: _has_depth(outside, "intake", 10_000), within_s=120)
        # A few turns more: nothing is sent twice.
        turns = len(clock.pauses_s)
        await until(lambda: len(clock.pauses_s) > turns + 10)
        for task in sweeping:
            task.cancel()
        await asyncio.gather(*sweeping, return_exceptions=True)
    messages = await consume_all(outside, "intake", 10_000)
    assert len(messages) == 10_000
    ids = [UUID(message.header.properties.message_id) for message in messages]
    assert Counter(ids).most_common(1)[0][1] == 1
    order = {each.id: number for number, each in enumerate(waiting)}
    by_sender: dict[str, list[int]] = {}
    for message in messages:
        by_sender.setdefault(message.header.properties.headers[headers.SENDER_ID], []).append(
            order[UUID(message.header.properties.message_id)]
        )
    assert all(numbers == sorted(numbers) for numbers in by_sender.values())
    assert sum(map(len, by_sender.values())) == 10_000
    for database in databases:
        await database.close()


async def _has_depth(outside: Bystander, queue: str, depth: int) -> bool:
    return await outside.depth(queue) >= depth


async def test_marks_survive_a_database_that_is_away_for_a_while(database: Database, clock: SetClock) -> None:
    mail = Mail(database)
    (ada,) = await mail.make_users(1)
    ids = await mail.keep_many(ada, 3)
    failures = 3

    async def clear(*_: Any) -> None:
        nonlocal failures
        if failures:
            failures -= 1
            raise Unavailable("away")

    marks = DispatchMarks(database, clock, clear)
    marks.start()
    marks.add(Dispatched(done=set(ids[:2]), gone_queues={(ada, 1)}))
    await until(lambda: failures < 3)
    assert await count_pending(database) == 3
    marks.add(Dispatched(done={ids[2]}))
    await until(lambda: _is_pending(database, 0))
    assert failures == 0
    await marks.stop()


async def test_stopping_writes_what_is_left(database: Database, clock: SetClock) -> None:
    mail = Mail(database)
    (ada,) = await mail.make_users(1)
    ids = await mail.keep_many(ada, 2)
    marks = DispatchMarks(database, clock, clear_queue_marks)
    marks.add(Dispatched())  # nothing: no transaction for it
    marks.add(Dispatched(done=set(ids)))
    await marks.stop()
    assert await count_pending(database) == 0
    await marks.stop()
