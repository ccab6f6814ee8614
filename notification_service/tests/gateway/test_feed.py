from __future__ import annotations

from typing import Any, cast

import pytest
from builders import USER

from notification_service.broker.user_queues import Receipt
from notification_service.gateway.feed import Feed


def receipt(tag: int) -> Receipt:
    return Receipt(cast("Any", None), tag)


def make_feed() -> Feed:
    return Feed(USER, "default")


def test_frames_are_settled_by_the_first_acknowledgement_of_any_device() -> None:
    feed = make_feed()
    for seq in (1, 2, 3):
        assert feed.add_unsettled(seq, receipt(seq), 0.0) == []
    assert [each.tag for each in feed.take_acked(2)] == [1, 2]
    assert feed.take_acked(2) == []
    assert (feed.unsettled_count, feed.last_seq, feed.acked_seq) == (1, 3, 2)


def test_what_a_device_has_already_is_settled_at_once() -> None:
    feed = make_feed()
    feed.take_acked(5)
    assert [each.tag for each in feed.add_unsettled(4, receipt(9), 0.0)] == [9]


def test_two_copies_of_a_frame_are_settled_together() -> None:
    feed = make_feed()
    feed.add_unsettled(1, receipt(1), 0.0)
    feed.add_unsettled(1, receipt(2), 0.0)
    assert [each.tag for each in feed.take_acked(1)] == [1, 2]


def test_a_frame_that_needs_no_acknowledgement_is_taken_alone() -> None:
    feed = make_feed()
    feed.add_unsettled(1, receipt(1), 0.0)
    feed.add_unsettled(2, receipt(2), 0.0)
    assert [each.tag for each in feed.take(2)] == [2]
    assert feed.take(2) == []
    assert feed.waited_s(3.0) == 3.0
    assert [each.tag for each in feed.take(1)] == [1]
    assert feed.waited_s(3.0) == 0.0


@pytest.mark.req("I07")
def test_the_wait_is_that_for_the_frame_that_came_first() -> None:
    feed = make_feed()
    assert feed.waited_s(100.0) == 0.0
    feed.add_unsettled(1, receipt(1), 10.0)
    feed.add_unsettled(2, receipt(2), 20.0)
    assert feed.waited_s(50.0) == 40.0
    feed.add_unsettled(1, receipt(3), 50.0)  # a second copy
    assert feed.waited_s(50.0) == 40.0
    feed.take_acked(1)
    # That a device goes on is no progress with what came before: the broker's limit is one for each frame.
    assert feed.waited_s(60.0) == 40.0
    feed.take_acked(2)
    assert feed.waited_s(100.0) == 0.0


def test_a_second_copy_is_known() -> None:
    feed = make_feed()
    feed.add_unsettled(2, receipt(2), 0.0)
    feed.take_acked(1)
    assert [feed.knows(seq) for seq in (1, 2, 3)] == [True, True, False]


def test_everything_can_be_given_back_in_order() -> None:
    feed = make_feed()
    for seq in (3, 1, 2):
        feed.add_unsettled(seq, receipt(seq), 0.0)
    assert [each.tag for each in feed.take_all()] == [1, 2, 3]
    assert (feed.unsettled_count, feed.waited_s(100.0)) == (0, 0.0)


def test_the_oldest_connections_are_the_excess() -> None:
    feed = make_feed()
    feed.connections = cast("Any", ["a", "b", "c"])
    assert cast("Any", list(feed.find_excess(2))) == ["a"]
    assert list(feed.find_excess(3)) == []
