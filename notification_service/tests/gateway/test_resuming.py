from __future__ import annotations

from typing import Any

import pytest
from builders import make_cursor, make_info, position

from notification_service.notifications.resuming import decide_start


def decide(requested: str | None, **info: Any) -> tuple[str, int, int, str | None]:
    start = decide_start(requested, make_info(**info), max_items=100)
    return start.resume, start.seq, start.broadcast, start.reason


def test_a_given_position_wins_over_the_stored_one() -> None:
    assert decide(position(7, 2), top_seq=9, top_broadcast=3, cursor=make_cursor(3)) == ("recovered", 7, 2, None)


def test_without_a_position_the_last_acknowledgement_of_the_device_counts() -> None:
    info = {"top_seq": 9, "top_broadcast": 3, "cursor": make_cursor(3, sent=6, broadcast=1)}
    assert decide(None, **info) == ("recovered", 3, 1, None)
    assert decide_start(None, make_info(**info), max_items=100).high_seq == 6


def test_a_new_device_starts_where_the_users_others_are() -> None:
    assert decide(None, top_seq=9, acked_seq=5, top_broadcast=4, acked_broadcast=2) == ("fresh", 5, 2, None)


def test_a_new_user_starts_at_the_beginning_of_their_time() -> None:
    assert decide(None, top_seq=9, top_broadcast=50, broadcast_floor=48) == ("fresh", 0, 48, None)


def test_a_new_device_does_not_start_before_what_is_kept() -> None:
    assert decide(None, top_seq=9, floor_seq=4, top_broadcast=9, floor_broadcast=6) == ("fresh", 4, 6, None)


@pytest.mark.req("I08")
@pytest.mark.parametrize(
    ("requested", "info", "reason"),
    [
        ("nonsense", {"top_seq": 9}, "unknown_position"),
        (position(1, epoch="deadbeef"), {"top_seq": 9}, "unknown_position"),
        (position(10), {"top_seq": 9}, "unknown_position"),
        (position(0, 5), {"top_seq": 9, "top_broadcast": 4}, "unknown_position"),
        (position(3), {"top_seq": 9, "floor_seq": 4}, "too_old"),
        (position(9, 1), {"top_seq": 9, "top_broadcast": 9, "floor_broadcast": 2}, "too_old"),
        (position(1), {"top_seq": 102}, "too_many"),
        (position(9, 1), {"top_seq": 9, "top_broadcast": 102}, "too_many"),
        (None, {"top_seq": 102}, "too_many"),
        (None, {"top_seq": 9, "floor_seq": 4, "cursor": make_cursor(3)}, "too_old"),
    ],
)
def test_what_is_not_held_is_a_reset_to_the_end(requested: str | None, info: dict[str, Any], reason: str) -> None:
    assert decide(requested, **info) == ("reset", info["top_seq"], info.get("top_broadcast", 0), reason)


def test_the_longest_gap_is_still_replayed() -> None:
    assert decide(position(1), top_seq=101)[0] == "recovered"


def test_broadcasts_from_before_the_users_time_are_not_replayed() -> None:
    info = {"top_broadcast": 9, "broadcast_floor": 7}
    assert decide(position(0, 2), **info) == ("recovered", 0, 7, None)
    assert decide(position(0, 8), **info) == ("recovered", 0, 8, None)
