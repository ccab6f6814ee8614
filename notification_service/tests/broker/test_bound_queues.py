"""What is remembered of bound queues is short-lived and bounded."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest
from clocks import SetClock

from notification_service.broker import bound_queues
from notification_service.broker.bound_queues import BoundQueues


def test_it_knows_who_was_bound_within_ten_minutes() -> None:
    clock = SetClock()
    bound = BoundQueues(clock)
    ada, bob = uuid4(), uuid4()
    bound.note([ada])
    clock.advance(400)
    bound.note([bob])
    assert bound.find([ada, bob, uuid4()]) == {ada, bob}
    clock.advance(201)
    assert bound.find([ada, bob]) == {bob}
    bound.note([ada])
    bound.forget([bob, uuid4()])
    assert bound.find([ada, bob]) == {ada}
    bound.clear()
    assert bound.find([ada, bob]) == set()


def test_the_oldest_are_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bound_queues, "_MAX", 3)
    bound = BoundQueues(SetClock())
    users = [UUID(int=number) for number in range(4)]
    bound.note(users[:3])
    bound.note([users[0], users[3]])
    assert bound.find(users) == {users[0], users[2], users[3]}
