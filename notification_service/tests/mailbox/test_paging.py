"""From rows to a page: never past what was read completely."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from builders import COUNTS, USER

from notification_service.mailbox.paging import CHANGE_LIMIT, Head, Wanted, make_page
from notification_service.notifications.pages import Page

START = datetime(2026, 1, 1, tzinfo=UTC)
NOW = START + timedelta(days=1)


def note(number: int) -> UUID:
    return UUID(int=number)


def at(second: int) -> datetime:
    return START + timedelta(seconds=second)


def row(part: str, number: int, *, second: int | None = None, **changes: Any) -> SimpleNamespace:
    values: dict[str, Any] = {
        "part": part,
        "seq": number if part == "new" else changes.pop("seq", None),
        "changed_seq": number,
        "notification_id": note(number),
        "created_at": at(number if second is None else second),
        "expires_at": None,
        "read_at": None,
        "seen_at": None,
        "archived_at": None,
        "deleted_at": None,
        "last_change": None,
        "variant": None,
        "about": None,
        "label": None,
    }
    return SimpleNamespace(**{**values, **changes})


def log_row(number: int, *, second: int, **changes: Any) -> SimpleNamespace:
    return row("log", number, second=second, **{"seq": number, "notification_id": note(1000 + number), **changes})


def page_of(
    changes: list[Any], log: list[Any] | None = None, *, limit: int = 10, top: tuple[int, int] = (0, 0), after: int = 0
) -> Page:
    contents = {
        (each.notification_id, each.variant): json.dumps(
            {"id": str(each.notification_id), "title": each.variant}
        ).encode()
        for each in (*changes, *(log or ()))
        if each.notification_id
    }
    return make_page(
        Wanted(USER, "default", after, 0, limit),
        Head(*top, COUNTS),
        changes=changes,
        log=log or [],
        contents=contents,
        now=NOW,
    )


def numbers(page: Page) -> list[tuple[bool, int]]:
    return [(entry.is_broadcast, entry.number) for entry in page.entries]


def test_an_empty_page_completes_up_to_the_tops() -> None:
    page = page_of([], top=(7, 3))
    assert (page.entries, page.seq, page.broadcast, page.has_more) == ([], 7, 3, False)


def test_both_streams_are_merged_by_time_each_in_its_order() -> None:
    page = page_of(
        [row("new", 1, second=1), row("new", 2, second=5)],
        [log_row(1, second=2), log_row(2, second=9)],
        top=(2, 2),
    )
    assert numbers(page) == [(False, 1), (True, 1), (False, 2), (True, 2)]
    assert (page.seq, page.broadcast, page.has_more) == (2, 2, False)


def test_the_limit_cuts_and_says_so() -> None:
    page = page_of([row("new", number) for number in range(1, 5)], limit=3, top=(9, 0))
    assert numbers(page) == [(False, 1), (False, 2), (False, 3)]
    assert (page.seq, page.has_more) == (3, True)


def test_the_limit_counts_both_streams() -> None:
    page = page_of(
        [row("new", 1, second=1), row("new", 2, second=3)],
        [log_row(1, second=2), log_row(2, second=4)],
        limit=3,
        top=(2, 2),
    )
    assert numbers(page) == [(False, 1), (True, 1), (False, 2)]
    assert (page.seq, page.broadcast, page.has_more) == (2, 1, True)


def test_removed_and_expired_items_complete_their_numbers_in_silence() -> None:
    page = page_of(
        [row("new", 1, deleted_at=NOW), row("new", 2, expires_at=NOW), row("new", 3)],
        [log_row(1, second=1, deleted_at=NOW), log_row(2, second=2, expires_at=NOW)],
        top=(3, 2),
    )
    assert numbers(page) == [(False, 3)]
    assert (page.seq, page.broadcast) == (3, 2)


def test_one_action_is_one_state_frame_with_all_its_items() -> None:
    changes = [
        row("changed", 5, seq=1, notification_id=note(1), read_at=at(5), last_change="read"),
        row("changed", 5, seq=2, notification_id=note(2), read_at=at(5), last_change="read"),
        row("broadcast_state", 5, notification_id=note(1001), read_at=at(5), last_change="read"),
    ]
    page = page_of(changes, after=4, top=(5, 0))
    (entry,) = page.entries
    frame = json.loads(entry.body)
    assert (entry.type, frame["state"], frame["seq"], len(frame["ids"])) == ("state", "read", 5, 3)
    assert frame["item_state"]["read_at"]
    assert frame["counts"] == {"unread": 3, "unseen": 1}


def test_a_mark_is_a_state_frame_for_everything() -> None:
    mark = row("mark", 6, notification_id=None, created_at=None, read_at=at(6), last_change="read")
    frame = json.loads(page_of([mark], after=4, top=(6, 0)).entries[0].body)
    assert (frame["all"], frame["state"], "ids" in frame, "item_state" in frame) == (True, "read", False, False)


def test_an_item_that_arrived_and_changed_comes_under_both_numbers() -> None:
    changes = [
        row("new", 1, read_at=at(3)),
        row("new", 2),
        row("changed", 3, seq=1, notification_id=note(1), read_at=at(3), last_change="read"),
    ]
    page = page_of(changes, top=(3, 0))
    assert [(entry.type, entry.number) for entry in page.entries] == [
        ("notification", 1),
        ("notification", 2),
        ("state", 3),
    ]
    assert json.loads(page.entries[0].body)["state"]["read_at"]


def test_a_state_without_any_time_is_told_as_of_now() -> None:
    change = row("changed", 5, seq=1, notification_id=note(1), last_change="unread")
    assert json.loads(page_of([change], after=4, top=(5, 0)).entries[0].body)["at"] == "2026-01-02T00:00:00.000Z"


def test_changes_cut_by_their_own_limit_never_split_an_action() -> None:
    # One action on 300 items, then one on 300 more: only the first fits whole.
    changes = [
        row("changed", 5, seq=1, notification_id=note(number), read_at=at(5), last_change="read")
        for number in range(300)
    ]
    changes += [
        row("changed", 6, seq=1, notification_id=note(number), seen_at=at(6), last_change="seen")
        for number in range(300, CHANGE_LIMIT)
    ]
    page = page_of(changes, after=4, top=(6, 0))
    assert [(entry.number, len(json.loads(entry.body)["ids"])) for entry in page.entries] == [(5, 300)]
    assert (page.seq, page.has_more) == (5, True)


def test_new_items_wait_for_changes_that_were_cut_before_them() -> None:
    changes = [row("new", 600)]
    changes += [
        row("changed", number, seq=1, notification_id=note(number), read_at=at(1), last_change="read")
        for number in range(50, 50 + CHANGE_LIMIT)
    ]
    page = page_of(changes, after=40, top=(600, 0), limit=600)
    assert (page.seq, page.has_more) == (50 + CHANGE_LIMIT - 2, True)
    assert all(entry.type == "state" for entry in page.entries)


@pytest.mark.req("X-8")
def test_what_was_withdrawn_or_changed_comes_as_such() -> None:
    changes = [
        row("changed", 5, seq=1, notification_id=note(1), last_change="recalled", deleted_at=at(5)),
        row("changed", 6, seq=2, notification_id=note(2), last_change="collapsed", deleted_at=at(6)),
        row("changed", 7, seq=3, notification_id=note(3), last_change="updated", variant="de"),
    ]
    page = page_of(changes, after=4, top=(7, 0))
    bodies = [json.loads(entry.body) for entry in page.entries]
    assert [entry.type for entry in page.entries] == ["recalled", "recalled", "updated"]
    assert [(body["id"], body["seq"]) for body in bodies] == [(str(note(n)), n + 4) for n in (1, 2, 3)]
    assert [body.get("reason") for body in bodies] == ["recalled", "collapsed", None]
    assert bodies[2]["title"] == "de"


@pytest.mark.req("X-8")
def test_a_recalled_broadcast_comes_as_such_without_a_seq() -> None:
    log = [
        log_row(1, second=1, about=note(9), label="recalled", deleted_at=None),
        log_row(2, second=2, about=note(8), label="updated"),
    ]
    page = page_of([], log, top=(0, 2))
    bodies = [json.loads(entry.body) for entry in page.entries]
    assert [(entry.type, entry.is_broadcast, entry.number) for entry in page.entries] == [
        ("recalled", True, 1),
        ("updated", True, 2),
    ]
    assert bodies[0] == {"id": str(note(9)), "reason": "recalled"}
    assert bodies[1]["id"] == str(note(8))
