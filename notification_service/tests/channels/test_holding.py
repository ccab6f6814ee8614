"""A flood waits in the table and not in front of others: what goes at once, what waits, and who has the next turn."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import cast
from urllib.parse import parse_qs
from uuid import UUID, uuid4

import pytest
from channel_kit import Reply, http_sink, running_channels
from hypothesis import given
from hypothesis import strategies as some
from sqlalchemy import insert, select, update
from waiting import until

from notification_service.channels import admission
from notification_service.channels.admission import AT_ONCE, Admission, deal, make_share
from notification_service.channels.holding import (
    claim_held,
    find_channels_held,
    find_next_shares,
    list_tenants_held,
)
from notification_service.channels.models import deliveries
from notification_service.channels.queueing import LOOK_AGAIN, Queueing
from notification_service.channels.releasing import LOOK_INTERVAL, Outlet, Releasing
from notification_service.clock import SystemClock
from notification_service.db.engine import Database

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
pytestmark = pytest.mark.req("X-18")


# --- what goes at once ------------------------------------------------------------------------------------------------


def test_the_first_few_of_each_sender_go_at_once() -> None:
    doors = Admission()
    assert [doors.admit("sms", "a:shop", 100.0) for _ in range(40)].count(True) == AT_ONCE.count
    assert doors.admit("sms", "a:other", 100.0)
    assert doors.admit("sms", "b:shop", 100.0)
    assert doors.admit("email", "a:shop", 100.0)


def test_who_keeps_within_the_rate_never_waits() -> None:
    doors = Admission()
    assert all(doors.admit("sms", "a:shop", 100 + number / AT_ONCE.count) for number in range(1_000))


def test_who_floods_waits_until_it_has_been_quiet_and_no_longer_than_seconds() -> None:
    doors = Admission()
    admitted = [doors.admit("sms", "a:shop", 100 + number / 1_000) for number in range(20_000)]
    assert admitted.count(True) == AT_ONCE.count + 1
    assert not doors.admit("sms", "a:shop", 125.0)
    assert doors.admit("sms", "a:shop", 132.0)


def test_it_remembers_so_many_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "_MAX_SHARES", 10)
    doors = Admission()
    for number in range(100):
        doors.admit("sms", make_share("a", str(number)), 100.0)
    assert len(doors._free_at) == 10


@given(some.integers(1, 500), some.lists(some.text(min_size=1), min_size=1, max_size=40, unique=True))
def test_room_is_dealt_out_in_equal_parts(room: int, tenants: list[str]) -> None:
    parts = deal(room, tenants)
    assert sum(parts.values()) == room
    assert max(parts.values()) - min([*parts.values(), *([0] if len(parts) < len(tenants) else [])]) <= 1
    assert all(parts.values())


# --- what waits in the table ------------------------------------------------------------------------------------------


async def hold(
    database: Database, tenant: str, sender: str, count: int, *, channel: str = "sms", since: datetime = NOW
) -> list[UUID]:
    """Deliveries that wait, one a second later than the other; answers their ids in that order."""
    ids = [uuid4() for _ in range(count)]
    rows = [
        {
            "user_id": uuid4(),
            "id": each,
            "notification_id": uuid4(),
            "tenant": tenant,
            "channel": channel,
            "status": "pending",
            "attempts": 0,
            "settled_attempts": 0,
            "created_at": since + timedelta(seconds=number),
            "next_attempt_at": NOW + LOOK_AGAIN,
            "held_share": make_share(tenant, sender),
        }
        for number, each in enumerate(ids)
    ]
    async with database.write() as connection:
        await connection.execute(insert(deliveries), rows)
    return ids


async def test_tenants_and_their_senders_are_found_one_after_the_other(database: Database) -> None:
    for tenant, sender in (("a", "x"), ("a", "y"), ("b", "x"), ("c", "z")):
        await hold(database, tenant, sender, 3)
    await hold(database, "d", "x", 1, channel="push")
    async with database.read() as connection:
        assert await find_channels_held(connection, {"sms", "push", "email"}) == {"sms", "push"}
        assert await find_channels_held(connection, set()) == set()
        assert await list_tenants_held(connection, "sms", after="", limit=10) == ["a", "b", "c"]
        assert await list_tenants_held(connection, "sms", after="", limit=2) == ["a", "b"]
        assert await list_tenants_held(connection, "sms", after="b", limit=2) == ["c"]
        assert await list_tenants_held(connection, "sms", after="c", limit=2) == []
        found = await find_next_shares(connection, "sms", {"a": "", "b": "", "c": "", "nobody": ""})
        assert found == {"a": "a:x", "b": "b:x", "c": "c:z"}
        assert await find_next_shares(connection, "sms", {"a": "a:x", "c": "c:z"}) == {"a": "a:y", "c": "c:z"}
        assert await find_next_shares(connection, "sms", {"a": "a:y"}) == {"a": "a:x"}


async def test_the_oldest_are_taken_first_and_once(database: Database) -> None:
    newer = await hold(database, "a", "x", 2, since=NOW + timedelta(hours=1))
    older = await hold(database, "a", "x", 2)
    other = await hold(database, "b", "x", 3)
    soon = NOW + timedelta(seconds=30)
    async with database.write() as connection:
        taken = await claim_held(connection, "sms", {("a", "a:x"): 3, ("b", "b:x"): 1}, look_again=soon)
        assert {(each.id, attempt) for each, attempt in taken} == {(each, 1) for each in (*older, newer[0], other[0])}
        taken = await claim_held(connection, "sms", {("a", "a:x"): 3}, look_again=soon)
        assert [each.id for each, _ in taken] == [newer[1]]
        assert await claim_held(connection, "sms", {("a", "a:x"): 3}, look_again=soon) == []
        times = await connection.execute(
            select(deliveries.c.next_attempt_at).where(deliveries.c.held_share.is_(None)).distinct()
        )
        assert list(times.scalars()) == [soon]


async def test_what_was_recalled_while_it_waited_only_leaves_the_line(database: Database) -> None:
    (recalled,) = await hold(database, "a", "x", 1)
    async with database.write() as connection:
        await connection.execute(update(deliveries).values(status="recalled", next_attempt_at=None))
        assert await claim_held(connection, "sms", {("a", "a:x"): 3}, look_again=NOW) == []
        row = (await connection.execute(select(deliveries).where(deliveries.c.id == recalled))).one()
    assert (row.status, row.next_attempt_at, row.held_share) == ("recalled", None, None)


# --- all of it --------------------------------------------------------------------------------------------------------

TWILIO = {
    "NOTIFY_TWILIO_ACCOUNT_SID": "AC1",
    "NOTIFY_TWILIO_AUTH_TOKEN": "t0ken",
    "NOTIFY_TWILIO_FROM": "+15005550006",
}
FLOOD = 200


async def test_a_flood_is_sent_whole_and_others_do_not_wait_for_it(
    database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two tenants flood. A third one's few are sent when a place is free; of the two neither waits for the other."""
    async with http_sink(lambda _: Reply(201, body=b'{"sid":"SM1"}')) as sink:
        environment = {**TWILIO, "NOTIFY_TWILIO_API_URL": sink.url}
        async with running_channels(database, amqp_url, monkeypatch, environment=environment, only="sms") as sending:
            people = {
                tenant: [
                    await sending.make_user(tenant=tenant, phone=f"+49151{prefix}{number:04}")
                    for number in range(count)
                ]
                for tenant, prefix, count in (("a", 1000, FLOOD), ("b", 2000, FLOOD), ("calm", 3000, 3))
            }
            sink.answering.clear()
            sent = [await sending.deliver(*people[each], channel="sms", tenant=each) for each in ("a", "b")]
            await until(lambda: len(sink.seen) == 32)
            calm = await sending.deliver(*people["calm"], channel="sms", tenant="calm")

            async def are_in_line() -> bool:
                return all(row.attempts == 1 for row in await sending.rows(calm))

            await until(are_in_line)
            sent.append(calm)
            sink.answering.set()
            for each in sent:
                await sending.wait_for(each, "sent", within_s=60)
    order = [parse_qs(seen.body.decode())["To"][0][6:10] for seen in sink.seen]
    assert Counter(order) == {"1000": FLOOD, "2000": FLOOD, "3000": 3}
    # They came when 32 were being sent, and are among the next 32 of which nobody says which call is the first.
    assert max(index for index, tenant in enumerate(order) if tenant == "3000") < 32 + 32 + 3 * 3
    # `b` began when all of `a` was there: were there one line, all of `a` would come first.
    assert order[:FLOOD].count("2000") > FLOOD // 4


async def test_senders_of_one_tenant_take_turns_and_nothing_is_released_into_nowhere(database: Database) -> None:
    """The loop by itself: what it takes, in which order, while RabbitMQ is there and while it is not."""
    for tenant, sender in (("a", "x"), ("a", "y"), ("b", "z")):
        await hold(database, tenant, sender, 20)
    queueing = Taking(database)
    releasing = Releasing(database, cast("Queueing", queueing), SystemClock(), outlets={"sms": Outlet(8, lambda: 4)})
    task = asyncio.create_task(releasing.run())
    try:
        await asyncio.sleep(3 * LOOK_INTERVAL.total_seconds())
        assert queueing.taken == []
        queueing.is_ready = True
        await until(lambda: sum(sum(each.values()) for each in queueing.taken) == 60)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert queueing.taken[:4] == [
        {("a", "a:x"): 2, ("b", "b:z"): 2},
        {("a", "a:y"): 2, ("b", "b:z"): 2},
        {("a", "a:x"): 2, ("b", "b:z"): 2},
        {("a", "a:y"): 2, ("b", "b:z"): 2},
    ]
    # `b` has nothing any more: the whole room is `a`'s, for one sender after the other.
    assert queueing.taken[10:12] == [{("a", "a:x"): 4}, {("a", "a:y"): 4}]


class Taking:
    """Takes what is released out of the table; publishes nothing."""

    def __init__(self, database: Database) -> None:
        self.is_ready = False
        self.held = asyncio.Event()
        self.taken: list[dict[tuple[str, str], int]] = []
        self._database = database

    async def release(self, channel: str, parts: dict[tuple[str, str], int]) -> int:
        self.taken.append(parts)
        async with self._database.write() as connection:
            return len(await claim_held(connection, channel, parts, look_again=NOW))


async def test_what_waits_outlives_the_process_that_held_it_back(
    database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with http_sink(lambda _: Reply(201, body=b'{"sid":"SM1"}')) as sink:
        environment = {**TWILIO, "NOTIFY_TWILIO_API_URL": sink.url}
        async with running_channels(
            database, amqp_url, monkeypatch, environment=environment, only="sms", start=False
        ) as sending:
            async with running_channels(database, amqp_url, monkeypatch, environment=environment, only="sms"):
                pass  # declares the queues
            people = [await sending.make_user(phone=f"+491514000{number:03}") for number in range(60)]
            flood = await sending.deliver(*people, channel="sms")
            states = Counter((row.status, row.held_share) for row in await sending.rows(flood))
            assert states == {("queued", None): AT_ONCE.count, ("pending", "default:shop"): 60 - AT_ONCE.count}
        async with running_channels(database, amqp_url, monkeypatch, environment=environment, only="sms") as sending:
            await sending.wait_for(flood, "sent", within_s=60)
            assert {row.held_share for row in await sending.rows(flood)} == {None}


async def test_what_time_brings_all_at_once_waits_too(
    database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A night's deliveries all fall due at eight."""
    environment = {**TWILIO, "NOTIFY_TWILIO_API_URL": "http://127.0.0.1:1"}
    async with running_channels(
        database, amqp_url, monkeypatch, environment=environment, only="sms", start=False
    ) as sending:
        async with running_channels(database, amqp_url, monkeypatch, environment=environment, only="sms"):
            pass  # declares the queues
        await hold(database, "default", "shop", 50)
        async with database.write() as connection:
            await connection.execute(update(deliveries).values(held_share=None, next_attempt_at=NOW))
        assert await sending.parts.queueing.sweep() == 50
        async with database.read() as connection:
            rows = (await connection.execute(select(deliveries.c.status, deliveries.c.held_share))).all()
    waiting = 50 - AT_ONCE.count
    assert Counter(rows) == {("queued", None): AT_ONCE.count, ("pending", "default:"): waiting}
