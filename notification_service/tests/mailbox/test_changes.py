"""What a device missed, read back; on both databases."""

from __future__ import annotations

import json
from typing import Any

import pytest
from mail_box import Mail

from notification_service.mailbox.actions import Action
from notification_service.mailbox.changes import read_changes
from notification_service.mailbox.paging import Wanted
from notification_service.notifications.pages import Page


def shown(page: Page) -> list[tuple[str, bool, int]]:
    return [(str(entry.type), entry.is_broadcast, entry.number) for entry in page.entries]


def bodies(page: Page) -> list[dict[str, Any]]:
    return [json.loads(entry.body) for entry in page.entries]


async def test_a_stranger_has_an_empty_page(mail: Mail) -> None:
    (ada,) = await mail.make_users(1)
    assert await mail.changes(ada) == Page([], 0, 0, has_more=False)


async def test_everything_after_a_position_comes_in_order(mail: Mail) -> None:
    (ada,) = await mail.make_users(1)
    sent = await mail.keep_many(ada, 2)
    shared = await mail.broadcast()
    sent += await mail.keep_many(ada, 2)
    page = await mail.changes(ada)
    assert [body["id"] for body in bodies(page)] == [
        str(each) for each in (*sent[:2], shared.notification.id, *sent[2:])
    ]
    assert (page.seq, page.broadcast, page.has_more) == (4, 1, False)
    assert shown(await mail.changes(ada, 3, 1)) == [("notification", False, 4)]
    assert bodies(page)[0]["counts"] == {"unread": 5, "unseen": 5}


async def test_pages_follow_one_another_without_a_gap(mail: Mail) -> None:
    (ada,) = await mail.make_users(1)
    for _ in range(3):
        await mail.keep_many(ada, 4)
        await mail.broadcast()
    seen: list[str] = []
    page = Page([], 0, 0, has_more=True)
    while page.has_more:
        page = await mail.changes(ada, page.seq, page.broadcast, limit=4)
        assert len(page.entries) <= 4
        seen += [body["id"] for body in bodies(page)]
    assert len(seen) == len(set(seen)) == 15


async def test_many_users_are_answered_at_once(mail: Mail) -> None:
    ada, ben, eve = await mail.make_users(3)
    await mail.keep_many(ada, 3)
    await mail.keep_many(ben, 2)
    await mail.broadcast()
    wanted = [Wanted(user, "default", after, 0, 10) for user, after in ((ada, 1), (ben, 0), (eve, 0))]
    async with mail.database.read() as connection:
        pages = await read_changes(connection, wanted, live=mail.live, now=mail.now)
    assert [len(pages[user].entries) for user in (ada, ben, eve)] == [3, 3, 1]
    assert [(pages[user].seq, pages[user].broadcast) for user in (ada, ben, eve)] == [(3, 1), (2, 1), (0, 1)]


async def test_a_change_to_what_the_device_has_is_a_state_frame(mail: Mail) -> None:
    (ada,) = await mail.make_users(1)
    sent = await mail.keep_many(ada, 3)
    await mail.change(ada, Action.READ, sent[:2])
    await mail.change(ada, Action.ARCHIVE, [sent[0]])
    page = await mail.changes(ada, 3)
    archived, read = (bodies(page)[index] for index in (1, 0))
    # Item 0 was read and then archived: the later change stands for both.
    assert (read["state"], read["ids"], read["seq"]) == ("read", [str(sent[1])], 4)
    assert (archived["state"], archived["ids"], archived["seq"]) == ("archived", [str(sent[0])], 5)
    assert archived["item_state"]["read_at"]
    assert page.seq == 5


async def test_what_was_removed_before_it_was_seen_is_not_shown(mail: Mail) -> None:
    (ada,) = await mail.make_users(1)
    sent = await mail.keep_many(ada, 2)
    shared = await mail.broadcast()
    await mail.change(ada, Action.DELETE, [sent[0], shared.notification.id])
    page = await mail.changes(ada)
    assert shown(page) == [("notification", False, 2), ("state", False, 3)]
    assert set(bodies(page)[1]["ids"]) == {str(sent[0]), str(shared.notification.id)}
    assert (page.seq, page.broadcast) == (3, 1)


async def test_reading_everything_is_one_frame_however_many_items(mail: Mail) -> None:
    (ada,) = await mail.make_users(1)
    await mail.keep_many(ada, 600)
    change = await mail.change(ada, Action.READ, None)
    assert (change.changed_count, change.seq) == (600, 601)
    page = await mail.changes(ada, 600)
    (frame,) = bodies(page)
    assert (frame["all"], frame["state"], frame["seq"]) == (True, "read", 601)


async def test_an_action_on_500_items_is_never_split(mail: Mail) -> None:
    (ada,) = await mail.make_users(1)
    sent = await mail.keep_many(ada, 900)
    await mail.change(ada, Action.READ, sent[:500])
    await mail.change(ada, Action.SEEN, sent[500:])
    sizes, page = [], Page([], 900, 0, has_more=True)
    while page.has_more:
        page = await mail.changes(ada, page.seq, page.broadcast, limit=5)
        sizes += [len(body["ids"]) for body in bodies(page)]
    assert sizes == [500, 400]


async def test_expired_items_are_left_out(mail: Mail) -> None:
    (ada,) = await mail.make_users(1)
    await mail.keep_many(ada, 1, ttl_seconds=5)
    await mail.broadcast(ttl_seconds=5)
    kept = await mail.keep_many(ada, 1)
    for _ in range(10):
        mail.tick()
    page = await mail.changes(ada)
    assert [body["id"] for body in bodies(page)] == [str(kept[0])]
    assert (page.seq, page.broadcast) == (2, 1)


@pytest.mark.parametrize("limit", [1, 2, 7])
async def test_any_limit_brings_the_same(mail: Mail, limit: int) -> None:
    (ada,) = await mail.make_users(1)
    sent = await mail.keep_many(ada, 10)
    await mail.change(ada, Action.READ, sent[2:5])
    await mail.broadcast()
    seen: list[tuple[str, bool, int]] = []
    page = Page([], 0, 0, has_more=True)
    while page.has_more:
        page = await mail.changes(ada, page.seq, page.broadcast, limit=limit)
        seen += shown(page)
    assert sorted(seen) == sorted(
        [("notification", False, number) for number in range(1, 11)] + [("notification", True, 1), ("state", False, 11)]
    )
