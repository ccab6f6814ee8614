"""Cursors of many devices, written together: nothing is forgotten, and nothing written by twos and threes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from clocks import SetClock
from waiting import until

from notification_service.errors import Unavailable
from notification_service.gateway import cursors as cursors_module
from notification_service.gateway.cursors import Cursors
from notification_service.notifications.pages import Cursor


class Mailbox:
    """Notes what it is given; each call waits until it may go on, or fails."""

    def __init__(self) -> None:
        self.calls: list[dict[UUID, int]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.is_away = False

    async def write_cursors(self, cursors: Sequence[tuple[UUID, str, Cursor]]) -> None:
        await self.gate.wait()
        if self.is_away:
            raise Unavailable("the database does not answer")
        self.calls.append({user_id: cursor.acked_seq for user_id, _, cursor in cursors})


@pytest.fixture
async def mailbox() -> Mailbox:
    return Mailbox()


@pytest.fixture
async def cursors(mailbox: Mailbox) -> AsyncIterator[Cursors]:
    made = Cursors(cast("Any", mailbox), SetClock())
    made.start()
    yield made
    mailbox.gate.set()
    await made.stop()


def note(cursors: Cursors, user_id: UUID, seq: int, *, is_leaving: bool = False) -> None:
    cursors.note(user_id, "phone", Cursor(seq, 0, seq, 0), is_leaving=is_leaving)


async def test_what_comes_while_others_are_written_is_written_together(cursors: Cursors, mailbox: Mailbox) -> None:
    people = [uuid4() for _ in range(5)]
    mailbox.gate.clear()
    note(cursors, people[0], 1, is_leaving=True)
    await until(lambda: bool(cursors._writing))
    for user_id in people[1:]:
        note(cursors, user_id, 1)
    mailbox.gate.set()
    await until(lambda: not cursors._writing)
    note(cursors, people[1], 2)
    await until(lambda: len(mailbox.calls) == 2)
    assert mailbox.calls == [{people[0]: 1}, {user_id: 2 if user_id is people[1] else 1 for user_id in people[1:]}]


async def test_until_it_is_written_the_latest_is_found_here(cursors: Cursors, mailbox: Mailbox) -> None:
    ada = uuid4()
    mailbox.gate.clear()
    note(cursors, ada, 1, is_leaving=True)
    await until(lambda: bool(cursors._writing))
    assert cursors.find(ada, "phone") == Cursor(1, 0, 1, 0)
    note(cursors, ada, 2)
    assert cursors.find(ada, "phone") == Cursor(2, 0, 2, 0)
    mailbox.gate.set()
    await until(lambda: cursors.find(ada, "phone") is None)
    assert mailbox.calls == [{ada: 1}, {ada: 2}]


async def test_what_the_database_does_not_take_waits_and_is_never_replaced_by_older(
    cursors: Cursors, mailbox: Mailbox
) -> None:
    ada, bob = uuid4(), uuid4()
    mailbox.gate.clear()
    note(cursors, ada, 1)
    note(cursors, bob, 1, is_leaving=True)
    await until(lambda: bool(cursors._writing))
    note(cursors, ada, 2)
    mailbox.is_away = True
    mailbox.gate.set()
    await until(lambda: not cursors._writing)
    assert (cursors.find(ada, "phone"), cursors.find(bob, "phone")) == (Cursor(2, 0, 2, 0), Cursor(1, 0, 1, 0))
    mailbox.is_away = False
    await until(lambda: mailbox.calls == [{ada: 2, bob: 1}])


async def test_more_than_one_write_takes_is_written_without_a_pause(
    mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cursors_module, "_BATCH", 10)
    cursors = Cursors(cast("Any", mailbox), SetClock())
    for _ in range(25):
        note(cursors, uuid4(), 1)
    cursors.start()
    await until(lambda: len(mailbox.calls) == 2)
    await cursors.stop()
    assert [len(each) for each in mailbox.calls] == [10, 10, 5]
