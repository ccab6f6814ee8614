"""Changing the state of items: what changes, what is counted, what every device is told; on both databases."""

from __future__ import annotations

import asyncio
import json
from uuid import UUID, uuid4

import pytest
from mail_box import Mail

from notification_service.mailbox.actions import Action


async def test_one_action_takes_one_number_and_tells_what_changed(mail: Mail) -> None:
    (ada,) = await mail.make_users(1)
    sent = await mail.keep_many(ada, 3)
    change = await mail.change(ada, Action.READ, [sent[0], sent[1], sent[1], uuid4()])
    assert (change.seq, change.changed_count) == (4, 2)
    assert (change.counts.unread, change.counts.unseen, change.counts.total) == (1, 1, 3)
    assert change.body is not None
    frame = json.loads(change.body)
    assert set(frame["ids"]) == {str(sent[0]), str(sent[1])}
    assert (frame["state"], frame["seq"], frame["counts"]) == ("read", 4, {"unread": 1, "unseen": 1})


async def test_nothing_changed_takes_no_number(mail: Mail) -> None:
    (ada,) = await mail.make_users(1)
    sent = await mail.keep_many(ada, 1)
    await mail.change(ada, Action.READ, sent)
    again = await mail.change(ada, Action.READ, sent)
    assert (again.seq, again.changed_count, again.body) == (None, 0, None)
    assert again.counts.total == 1
    assert (await mail.open(ada)).top_seq == 2


async def test_foreign_items_are_passed_over(mail: Mail) -> None:
    ada, ben = await mail.make_users(2)
    sent = await mail.keep_many(ada, 1)
    assert (await mail.change(ben, Action.DELETE, sent)).changed_count == 0
    assert (await mail.open(ada)).counts.total == 1


@pytest.mark.parametrize(
    ("action", "counts"),
    [
        (Action.READ, (1, 1, 3)),
        (Action.SEEN, (3, 1, 3)),
        (Action.ARCHIVE, (1, 1, 1)),
        (Action.DELETE, (1, 1, 1)),
    ],
)
async def test_items_and_broadcasts_are_counted_alike(mail: Mail, action: Action, counts: tuple[int, int, int]) -> None:
    (ada,) = await mail.make_users(1)
    sent = await mail.keep_many(ada, 2)
    shared = await mail.broadcast()
    change = await mail.change(ada, action, [sent[0], shared.notification.id])
    assert (change.counts.unread, change.counts.unseen, change.counts.total) == counts
    assert (await mail.open(ada)).counts == change.counts


async def test_everything_at_once_is_counted_as_one_by_one(mail: Mail) -> None:
    ada, ben = await mail.make_users(2)
    for _ in range(3):
        await mail.keep(ada, ben)
        await mail.broadcast()
    ids = [UUID(json.loads(entry.body)["id"]) for entry in (await mail.changes(ada)).entries]
    for action in (Action.SEEN, Action.READ, Action.UNREAD, Action.ARCHIVE, Action.UNARCHIVE, Action.DELETE):
        every = await mail.change(ada, action, ids)
        at_once = await mail.change(ben, action, None)
        assert at_once.counts == every.counts, action
        assert at_once.changed_count == every.changed_count, action
    assert (await mail.open(ben)).counts.total == 0


async def test_everything_twice_changes_nothing_the_second_time(mail: Mail) -> None:
    (ada,) = await mail.make_users(1)
    await mail.keep_many(ada, 2)
    await mail.broadcast()
    assert (await mail.change(ada, Action.READ, None)).changed_count == 3
    again = await mail.change(ada, Action.READ, None)
    assert (again.seq, again.changed_count) == (None, 0)


async def test_reading_everything_does_not_touch_what_comes_later(mail: Mail) -> None:
    (ada,) = await mail.make_users(1)
    await mail.broadcast()
    await mail.change(ada, Action.READ, None)
    (kept,) = await mail.keep(ada)
    assert kept.counts.unread == 1
    await mail.broadcast()
    assert (await mail.open(ada)).counts.unread == 2


async def test_a_user_with_broadcasts_only_can_change_them(mail: Mail) -> None:
    (ada,) = await mail.make_users(1)
    shared = await mail.broadcast()
    change = await mail.change(ada, Action.READ, [shared.notification.id])
    assert (change.seq, change.counts.unread, change.has_queue) == (1, 0, False)


async def test_changes_at_the_same_time_keep_numbers_and_counts(mail: Mail) -> None:
    (ada,) = await mail.make_users(1)
    sent = await mail.keep_many(ada, 20)
    changes = await asyncio.gather(*(mail.change(ada, Action.READ, [each]) for each in sent))
    assert sorted(change.seq or 0 for change in changes) == list(range(21, 41))
    assert (await mail.open(ada)).counts.unread == 0
