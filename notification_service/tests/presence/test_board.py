"""Who is where, and what others see of it."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest
from builders import OTHER, USER, WALL_CLOCK

from notification_service.presence.board import Attendance, Board
from shared_contracts.ws.frames import PresenceStatus

ONLINE, AWAY, OFFLINE = PresenceStatus.ONLINE, PresenceStatus.AWAY, PresenceStatus.OFFLINE


def connection(number: int, device: str = "phone", *, is_away: bool = False) -> Attendance:
    return Attendance(UUID(int=number), device, is_away)


def make() -> Board:
    board = Board(silence_s=16.0, grace_s=10.0)
    for name in "ab":
        board.hear(name, f"queue-{name}", has_sockets=True, now=0.0, moment=WALL_CLOCK)
    return board


def put(board: Board, node: str, user: UUID, *attendances: Attendance, now: float = 0.0) -> None:
    board.put(node, user, attendances, now=now, moment=WALL_CLOCK + timedelta(seconds=now))


def test_users_are_found_on_every_node_they_are_on() -> None:
    board = make()
    put(board, "a", USER, connection(1))
    put(board, "b", USER, connection(2))
    put(board, "own", USER, connection(3))
    put(board, "a", OTHER, connection(4))
    assert sorted(board.queues_of(USER)) == ["queue-a", "queue-b"]
    assert board.queues_of(OTHER) == ["queue-a"]
    put(board, "a", USER)
    put(board, "a", OTHER)
    assert board.queues_of(USER) == ["queue-b"]
    assert board.queues_of(OTHER) == []
    put(board, "a", OTHER)
    assert board.queues_of(OTHER) == []


def test_a_node_with_a_new_queue_has_started_anew() -> None:
    board = make()
    put(board, "a", USER, connection(1))
    assert not board.hear("a", "queue-a", has_sockets=True, now=1.0, moment=WALL_CLOCK)
    assert board.hear("a", "queue-a2", has_sockets=True, now=2.0, moment=WALL_CLOCK)
    assert board.queues_of(USER) == []


def test_only_processes_with_sockets_are_asked() -> None:
    board = make()
    board.hear("api", "queue-api", has_sockets=False, now=0.0, moment=WALL_CLOCK)
    assert sorted(board.socket_queues) == ["queue-a", "queue-b"]


def test_silent_nodes_are_forgotten_with_their_users() -> None:
    board = make()
    put(board, "a", USER, connection(1))
    put(board, "b", USER, connection(2))
    put(board, "a", OTHER, connection(3))
    board.hear("b", "queue-b", has_sockets=True, now=10.0, moment=WALL_CLOCK)
    assert board.find_silent(16.0) == []
    assert board.find_silent(17.0) == ["a"]
    assert board.forget("a", now=17.0, moment=WALL_CLOCK) == {OTHER}
    assert board.forget("a", now=17.0, moment=WALL_CLOCK) == set()
    assert board.queues_of(USER) == ["queue-b"]
    assert board.status_of(OTHER) is ONLINE
    assert [user for user, _ in board.on_tick(27.0)] == [OTHER]
    assert board.status_of(OTHER) is OFFLINE


@pytest.mark.req("PR-4")
def test_online_wins_over_away_on_every_device_and_node() -> None:
    board = make()
    put(board, "a", USER, connection(1, "phone", is_away=True))
    assert board.status_of(USER) is AWAY
    put(board, "b", USER, connection(2, "laptop"), connection(3, "laptop", is_away=True))
    view = board.describe(USER, WALL_CLOCK)
    assert (view.status, view.last_seen_at, view.connection_count) == (ONLINE, WALL_CLOCK, 3)
    assert view.devices == {"phone": AWAY, "laptop": ONLINE}


def test_away_says_since_when() -> None:
    board = make()
    put(board, "a", USER, connection(1))
    put(board, "a", USER, connection(1, is_away=True), now=30.0)
    later = WALL_CLOCK + timedelta(seconds=99)
    assert board.describe(USER, later).last_seen_at == WALL_CLOCK + timedelta(seconds=30)
    put(board, "a", USER, connection(1), now=100.0)
    assert board.describe(USER, later).last_seen_at == later


@pytest.mark.req("PR-2")
def test_a_short_drop_changes_nothing() -> None:
    board = make()
    put(board, "a", USER, connection(1))
    assert set(board.take_changed()) == {USER}
    put(board, "a", USER, now=1.0)
    put(board, "b", USER, connection(2), now=9.0)
    assert board.on_tick(60.0) == []
    assert set(board.take_changed()) == set()
    assert board.status_of(USER) is ONLINE


def test_gone_is_offline_since_the_moment_it_left() -> None:
    board = make()
    put(board, "a", USER, connection(1))
    set(board.take_changed())
    put(board, "a", USER, now=1.0)
    left_at = WALL_CLOCK + timedelta(seconds=1)
    view = board.describe(USER, WALL_CLOCK)
    assert (view.status, view.last_seen_at, view.devices) == (ONLINE, left_at, {})
    assert board.on_tick(10.9) == []
    assert board.on_tick(11.0) == [(USER, left_at)]
    view = board.describe(USER, WALL_CLOCK)
    assert (view.status, view.last_seen_at) == (OFFLINE, None)
    put(board, "a", USER, connection(2), now=20.0)
    assert set(board.take_changed()) == {USER}


@pytest.mark.req("D07")
def test_the_oldest_beyond_the_limit_over_all_nodes() -> None:
    board = make()
    put(board, "a", USER, connection(1), connection(4))
    put(board, "b", USER, connection(2), connection(3))
    assert board.find_excess(USER, 4) == set()
    assert board.find_excess(USER, 2) == {UUID(int=1), UUID(int=2)}
    assert board.find_excess(OTHER, 2) == set()
