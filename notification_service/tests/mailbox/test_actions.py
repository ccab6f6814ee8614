from __future__ import annotations

from datetime import UTC, datetime

import pytest

from notification_service.mailbox.actions import LABELS, Action, ItemFlags, apply_action

NOW = datetime(2026, 1, 2, tzinfo=UTC)
EARLIER = datetime(2026, 1, 1, tzinfo=UTC)


def test_reading_implies_seeing_and_keeps_an_earlier_time() -> None:
    assert apply_action(Action.READ, ItemFlags(), NOW) == ItemFlags(read_at=NOW, seen_at=NOW)
    assert apply_action(Action.READ, ItemFlags(seen_at=EARLIER), NOW) == ItemFlags(read_at=NOW, seen_at=EARLIER)


def test_unread_leaves_it_seen() -> None:
    assert apply_action(Action.UNREAD, ItemFlags(NOW, NOW), NOW) == ItemFlags(seen_at=NOW)


@pytest.mark.parametrize(
    ("action", "flags"),
    [
        (Action.READ, ItemFlags(read_at=EARLIER, seen_at=EARLIER)),
        (Action.UNREAD, ItemFlags()),
        (Action.SEEN, ItemFlags(seen_at=EARLIER)),
        (Action.ARCHIVE, ItemFlags(archived_at=EARLIER)),
        (Action.UNARCHIVE, ItemFlags()),
    ],
)
def test_what_is_like_that_already_is_the_same_object(action: Action, flags: ItemFlags) -> None:
    assert apply_action(action, flags, NOW) is flags


@pytest.mark.parametrize("action", list(Action))
def test_a_removed_item_stays_as_it_is(action: Action) -> None:
    gone = ItemFlags(deleted_at=EARLIER)
    assert apply_action(action, gone, NOW) is gone


def test_the_other_actions_set_their_own_flag() -> None:
    assert apply_action(Action.SEEN, ItemFlags(), NOW) == ItemFlags(seen_at=NOW)
    assert apply_action(Action.ARCHIVE, ItemFlags(), NOW) == ItemFlags(archived_at=NOW)
    assert apply_action(Action.UNARCHIVE, ItemFlags(archived_at=NOW), NOW) == ItemFlags()
    assert apply_action(Action.DELETE, ItemFlags(), NOW) == ItemFlags(deleted_at=NOW)


@pytest.mark.parametrize(
    ("flags", "counts"),
    [
        (ItemFlags(), (1, 1, 1)),
        (ItemFlags(seen_at=NOW), (1, 0, 1)),
        (ItemFlags(read_at=NOW, seen_at=NOW), (0, 0, 1)),
        (ItemFlags(archived_at=NOW), (0, 0, 0)),
        (ItemFlags(snoozed_until=NOW), (0, 0, 0)),
        (ItemFlags(deleted_at=NOW), (0, 0, 0)),
    ],
)
def test_what_an_item_adds_to_the_counts(flags: ItemFlags, counts: tuple[int, int, int]) -> None:
    assert flags.counts == counts


def test_every_action_has_a_label() -> None:
    assert set(LABELS) == set(Action)
