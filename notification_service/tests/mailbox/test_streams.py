"""Streams: numbers without gaps, counts that are kept, queues that are marked; on both databases."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import pytest
from mail_box import Mail
from sqlalchemy import event, func, select, update

from notification_service.mailbox import resume
from notification_service.mailbox.keep import keep_items
from notification_service.mailbox.models import items, streams
from notification_service.notifications.pages import Cursor
from notification_service.notifications.resuming import decide_start


async def test_numbers_rise_by_one_in_the_order_given(mail: Mail) -> None:
    ada, ben = await mail.make_users(2)
    first = await mail.keep(ada, ben)
    second = await mail.keep(ben)
    third = await mail.keep(ben, ada)
    numbers = [(kept.user_id, kept.seq) for kept in (*first, *second, *third)]
    assert numbers == [(ada, 1), (ben, 1), (ben, 2), (ben, 3), (ada, 2)]


async def test_a_batch_numbers_all_items_of_a_user_and_counts_them_one_by_one(mail: Mail) -> None:
    (ada,) = await mail.make_users(1)
    notifications = [mail.make_notification() for _ in range(3)]
    async with mail.database.write() as connection:
        kept = await keep_items(connection, [(each, [ada]) for each in notifications], live=mail.live, now=mail.now)
    assert [(each.seq, each.counts.unread, each.counts.unseen, each.counts.total) for each in kept] == [
        (1, 1, 1, 1),
        (2, 2, 2, 2),
        (3, 3, 3, 3),
    ]


async def test_writers_at_the_same_time_leave_no_gap(mail: Mail) -> None:
    users = await mail.make_users(5)
    await asyncio.gather(*(mail.keep(*(users if turn % 2 else users[::-1])) for turn in range(20)))
    async with mail.database.read() as connection:
        rows = await connection.execute(
            select(items.c.user_id, func.min(items.c.seq), func.max(items.c.seq), func.count()).group_by(
                items.c.user_id
            )
        )
        assert {tuple(row[1:]) for row in rows} == {(1, 20, 20)}


async def test_the_number_of_statements_does_not_grow_with_the_users(mail: Mail) -> None:
    few, many = await mail.make_users(2), await mail.make_users(200)
    await mail.keep(*few)
    counts = []
    for users in (few, many, many):
        executed: list[str] = []
        listener = lambda *arguments: executed.append(arguments[2])  # noqa: E731, B023 - used within the turn
        event.listen(mail.database.engine.sync_engine, "before_cursor_execute", listener)
        await mail.keep(*users)
        event.remove(mail.database.engine.sync_engine, "before_cursor_execute", listener)
        counts.append(len(executed))
    # New users cost one more: what was before their time is looked up for all of them together.
    assert counts[2] == counts[0]
    assert counts[1] <= counts[0] + 2


async def test_broadcasts_count_for_those_who_were_there(mail: Mail) -> None:
    (ada,) = await mail.make_users(1)
    await mail.broadcast()
    (ben,) = await mail.make_users(1)
    await mail.broadcast()
    kept = await mail.keep(ada, ben)
    assert [(each.counts.unread, each.counts.total) for each in kept] == [(3, 3), (2, 2)]


async def test_an_expired_broadcast_counts_no_more(mail: Mail) -> None:
    (ada,) = await mail.make_users(1)
    await mail.broadcast(ttl_seconds=60)
    assert (await mail.open(ada)).counts.unread == 1
    mail.now += timedelta(seconds=100)
    assert (await mail.open(ada)).counts.unread == 0


async def test_a_user_the_mirror_does_not_know_yet_starts_at_the_time_in_their_id(mail: Mail) -> None:
    from shared_contracts.ids import new_id

    await mail.broadcast()
    newcomer = new_id()
    assert (await mail.open(newcomer)).broadcast_floor == 1


# --- queues --------------------------------------------------------------------------------------------------------


async def test_opening_a_stream_marks_the_queue_for_the_next_item(mail: Mail) -> None:
    (ada,) = await mail.make_users(1)
    (before,) = await mail.keep(ada)
    info = await mail.open(ada)
    (after,) = await mail.keep(ada)
    assert (before.has_queue, info.top_seq, after.has_queue, after.queue_generation) == (False, 1, True, 1)


async def test_a_queue_that_is_gone_is_forgotten_unless_it_was_declared_again(mail: Mail) -> None:
    (ada,) = await mail.make_users(1)
    await mail.open(ada)
    (kept,) = await mail.keep(ada)
    await mail.open(ada)
    async with mail.database.write() as connection:
        await resume.clear_queue_marks(connection, {(ada, kept.queue_generation)})
    (kept,) = await mail.keep(ada)
    assert (kept.has_queue, kept.queue_generation) == (True, 2)
    async with mail.database.write() as connection:
        await resume.clear_queue_marks(connection, {(ada, kept.queue_generation)})
    (kept,) = await mail.keep(ada)
    assert not kept.has_queue


# --- cursors -------------------------------------------------------------------------------------------------------


async def test_cursors_never_go_back_and_the_furthest_device_is_the_users(mail: Mail) -> None:
    (ada,) = await mail.make_users(1)
    await mail.open(ada, "phone")
    await mail.write_cursor(ada, Cursor(5, 1, 7, 1))
    await mail.write_cursor(ada, Cursor(3, 2, 8, 2))
    await mail.write_cursor(ada, Cursor(2, 0, 2, 0), device_id="tv")
    info = await mail.open(ada, "phone")
    assert info.cursor == Cursor(5, 2, 8, 2)
    assert (info.acked_seq, info.acked_broadcast) == (5, 2)
    assert (await mail.open(ada, "tv")).cursor == Cursor(2, 0, 2, 0)
    assert (await mail.open(ada, "watch")).cursor is None


async def test_tops_are_read_for_many_users(mail: Mail) -> None:
    ada, ben, eve = await mail.make_users(3)
    await mail.keep(ada, ben)
    await mail.keep(ada)
    async with mail.database.read() as connection:
        assert await resume.read_tops(connection, [ada, ben, eve]) == {ada: 2, ben: 1}
        assert await resume.read_broadcast_tops(connection, ["no-such-tenant"]) == {}


async def test_what_is_no_longer_kept_is_told(mail: Mail) -> None:
    (ada,) = await mail.make_users(1)
    await mail.keep_many(ada, 3)
    async with mail.database.write() as connection:
        await connection.execute(update(streams).values(floor_seq=2))
    assert (await mail.open(ada)).floor_seq == 2


@pytest.mark.req("I04")
async def test_a_device_that_never_acknowledged_goes_on_where_it_began(mail: Mail) -> None:
    (ada,) = await mail.make_users(1)
    await mail.open(ada, "phone")
    await mail.keep(ada)
    await mail.broadcast()
    # Its node dies before the phone has the two; the user's other device has them.
    laptop = await mail.open(ada, "laptop")
    await mail.write_cursor(ada, Cursor(1, 1, 1, 1), "laptop")

    again = await mail.open(ada, "phone")

    assert laptop.cursor is None
    assert again.cursor == Cursor(0, 0, 0, 0)
    start = decide_start(None, again, max_items=100)
    assert (start.resume, start.seq, start.broadcast) == ("recovered", 0, 0)
    newcomer = decide_start(None, await mail.open(ada, "tablet"), max_items=100)
    assert (newcomer.resume, newcomer.seq, newcomer.broadcast) == ("fresh", 1, 1)


def make_id(at: datetime, number: int) -> UUID:
    """A UUIDv7 of this moment."""
    return UUID(int=int(at.timestamp() * 1000) << 80 | 7 << 76 | 2 << 62 | number)


async def test_users_the_mirror_does_not_know_yet_see_what_came_after_their_ids(mail: Mail) -> None:
    early = [make_id(mail.now, number) for number in range(20)]
    await mail.broadcast()
    late = [make_id(mail.now + timedelta(milliseconds=1), number) for number in range(20)]
    await mail.broadcast()
    unnumbered = uuid4()
    executed: list[str] = []
    listener = lambda *arguments: executed.append(arguments[2])  # noqa: E731
    event.listen(mail.database.engine.sync_engine, "before_cursor_execute", listener)
    kept = await mail.keep(*early, *late, unnumbered)
    event.remove(mail.database.engine.sync_engine, "before_cursor_execute", listener)
    assert len(executed) < 20
    unread = {each.user_id: each.counts.unread for each in kept}
    # Their own item, and the broadcasts since; an id without a time belongs to somebody who is new.
    assert [unread[each] for each in early] == [3] * 20
    assert [unread[each] for each in late] == [2] * 20
    assert unread[unnumbered] == 1
    assert (await mail.open(late[0])).broadcast_floor == 1
