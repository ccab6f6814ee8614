from __future__ import annotations

from builders import OTHER, USER

from notification_service.gateway.whereabouts import Whereabouts


def make() -> Whereabouts:
    found = Whereabouts(silence_s=16.0)
    found.hear("a", "queue-a", 0.0)
    found.hear("b", "queue-b", 0.0)
    return found


def test_users_are_found_on_every_node_they_joined() -> None:
    where = make()
    where.join("a", [USER, OTHER])
    where.join("b", [USER])
    assert sorted(where.queues_of(USER)) == ["queue-a", "queue-b"]
    assert where.queues_of(OTHER) == ["queue-a"]
    where.leave("a", [USER, OTHER])
    assert where.queues_of(USER) == ["queue-b"]
    assert where.queues_of(OTHER) == []
    where.leave("a", [OTHER])
    assert where.queues_of(OTHER) == []


def test_a_node_with_a_new_queue_has_started_anew() -> None:
    where = make()
    where.join("a", [USER])
    assert not where.hear("a", "queue-a", 1.0)
    assert where.hear("a", "queue-a2", 2.0)
    assert where.queues_of(USER) == []


def test_silent_nodes_are_forgotten_with_their_users() -> None:
    where = make()
    where.join("a", [USER])
    where.join("b", [USER])
    where.hear("b", "queue-b", 10.0)
    assert where.forget_silent(16.0) == []
    assert where.forget_silent(17.0) == ["a"]
    assert where.queues_of(USER) == ["queue-b"]
    where.forget("a")
    where.forget("b")
    assert where.queues_of(USER) == []
