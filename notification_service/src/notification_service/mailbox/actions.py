"""What an action does to an item, and to the counts. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType

from notification_service.notifications.pages import StateLabel


class Action(StrEnum):
    """What a user does with items."""

    READ = "read"
    UNREAD = "unread"
    SEEN = "seen"
    ARCHIVE = "archive"
    UNARCHIVE = "unarchive"
    DELETE = "delete"
    SNOOZE = "snooze"
    UNSNOOZE = "unsnooze"
    PIN = "pin"
    UNPIN = "unpin"


LABELS: MappingProxyType[Action, StateLabel] = MappingProxyType(
    {
        Action.READ: "read",
        Action.UNREAD: "unread",
        Action.SEEN: "seen",
        Action.ARCHIVE: "archived",
        Action.UNARCHIVE: "unarchived",
        Action.DELETE: "deleted",
        Action.SNOOZE: "snoozed",
        Action.UNSNOOZE: "unsnoozed",
        Action.PIN: "pinned",
        Action.UNPIN: "unpinned",
    }
)
"""The word of the `state` frame that tells every device of it."""


@dataclass(frozen=True, slots=True)
class ItemFlags:
    """The engagement of one user with one item. Reading implies seeing."""

    read_at: datetime | None = None
    seen_at: datetime | None = None
    archived_at: datetime | None = None
    snoozed_until: datetime | None = None
    deleted_at: datetime | None = None
    pinned_at: datetime | None = None

    @property
    def counts(self) -> tuple[int, int, int]:
        """What the item adds to (unread, unseen, total)."""
        if self.archived_at or self.deleted_at or self.snoozed_until:
            return 0, 0, 0
        return int(self.read_at is None), int(self.seen_at is None), 1


def apply_action(action: Action, flags: ItemFlags, now: datetime, *, until: datetime | None = None) -> ItemFlags:
    """The flags after the action; the very same object when it changes nothing. A removed item stays removed.

    Args:
        until: When a snoozed item comes back. It comes back as new: unread and unseen.
    """
    if flags.deleted_at is not None:
        return flags
    match action:
        case Action.READ if flags.read_at is None:
            return replace(flags, read_at=now, seen_at=flags.seen_at or now)
        case Action.UNREAD if flags.read_at is not None:
            return replace(flags, read_at=None)
        case Action.SEEN if flags.seen_at is None:
            return replace(flags, seen_at=now)
        case Action.ARCHIVE if flags.archived_at is None:
            return replace(flags, archived_at=now)
        case Action.UNARCHIVE if flags.archived_at is not None:
            return replace(flags, archived_at=None)
        case Action.DELETE:
            return replace(flags, deleted_at=now)
        case _:
            return _apply_rest(action, flags, now, until)
    return flags


def _apply_rest(action: Action, flags: ItemFlags, now: datetime, until: datetime | None) -> ItemFlags:
    match action:
        case Action.SNOOZE if until is not None and flags.snoozed_until != until:
            return replace(flags, snoozed_until=until)
        case Action.UNSNOOZE if flags.snoozed_until is not None:
            return replace(flags, snoozed_until=None, read_at=None, seen_at=None)
        case Action.PIN if flags.pinned_at is None:
            return replace(flags, pinned_at=now)
        case Action.UNPIN if flags.pinned_at is not None:
            return replace(flags, pinned_at=None)
    return flags
