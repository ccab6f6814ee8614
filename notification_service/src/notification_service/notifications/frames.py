"""The bytes of frames: everything but what differs by socket (`position`, `redelivered`) or by type is written once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, Protocol
from uuid import UUID

import orjson

from notification_service.clock import format_time
from notification_service.notifications.entity import Notification
from notification_service.notifications.kept import Counts
from notification_service.notifications.pages import FrameType, StateLabel

FRESH_STATE: Final = b'"state":{"read_at":null,"seen_at":null,"archived_at":null}'


class Flags(Protocol):
    """The engagement columns of an item."""

    @property
    def read_at(self) -> datetime | None:
        """When it was read."""

    @property
    def seen_at(self) -> datetime | None:
        """When it was seen."""

    @property
    def archived_at(self) -> datetime | None:
        """When it was put away."""


def encode_content(notification: Notification) -> bytes:
    """The part of a `notification` frame that is the same for every recipient; encoded once per notification."""
    return orjson.dumps(notification.content())


def encode_new_item(
    content: bytes, *, seq: int, counts: Counts, is_silent: bool = False, muted_devices: Sequence[str] = ()
) -> bytes:
    """A `notification` frame's body for one recipient, in about a microsecond: the content is spliced, not encoded."""
    if is_silent:
        content = b'{"silent":true,' + content[1:]
    elif muted_devices:
        content = b'{"muted_devices":%b,%b' % (orjson.dumps(muted_devices), content[1:])
    return b'{"seq":%d,"counts":{"unread":%d,"unseen":%d},%b,%b' % (
        seq,
        counts.unread,
        counts.unseen,
        FRESH_STATE,
        content[1:],
    )


def encode_new_broadcast(content: bytes) -> bytes:
    """A `notification` frame's body for everyone: no `seq`, no counts, nothing that differs by user."""
    return b"{%b,%b" % (FRESH_STATE, content[1:])


def encode_kept_item(content: bytes, *, seq: int | None, flags: Flags | None, counts: Counts | None) -> bytes:
    """A `notification` frame's body read back from the mailbox, with the item's present state."""
    state = FRESH_STATE
    if flags is not None and not flags.read_at is flags.seen_at is flags.archived_at is None:
        state = b'"state":%b' % orjson.dumps(describe_flags(flags))
    return b"{%b%b,%b" % (_encode_numbers(seq, counts), state, content[1:])


def encode_state(
    *, ids: Sequence[UUID] | None, label: StateLabel, at: datetime, seq: int, counts: Counts, flags: Flags | None = None
) -> bytes:
    """A `state` frame's body. `ids` None stands for all items."""
    frame: dict[str, Any] = {
        "state": label,
        "at": format_time(at),
        "seq": seq,
        "counts": {"unread": counts.unread, "unseen": counts.unseen},
    }
    if ids is None:
        frame["all"] = True
    else:
        frame["ids"] = [str(each) for each in ids]
    if flags is not None:
        frame["item_state"] = describe_flags(flags)
    return orjson.dumps(frame)


def encode_withdrawn(notification_id: UUID, *, seq: int | None, counts: Counts | None, reason: str) -> bytes:
    """A `recalled` frame's body; `reason` says whether the sender, a newer item or time took it away."""
    reason_text = orjson.dumps(reason)
    return b'{%b"id":"%b","reason":%b}' % (_encode_numbers(seq, counts), str(notification_id).encode(), reason_text)


def encode_updated(content: bytes, *, seq: int | None, counts: Counts | None) -> bytes:
    """An `updated` frame's body: everything clients see of the notification, as it is now."""
    return b"{%b%b" % (_encode_numbers(seq, counts), content[1:])


def encode_unknown(notification_id: UUID) -> bytes:
    """The content of a notification that is gone meanwhile: its id."""
    return b'{"id":"%b"}' % str(notification_id).encode()


def _encode_numbers(seq: int | None, counts: Counts | None) -> bytes:
    """What differs by recipient, with a comma behind each; all frames have something after it."""
    numbers = b"" if seq is None else b'"seq":%d,' % seq
    if counts is None:
        return numbers
    return b'%b"counts":{"unread":%d,"unseen":%d},' % (numbers, counts.unread, counts.unseen)


def describe_flags(flags: Flags) -> dict[str, str | None]:
    """The `state` object of an item."""
    return {
        name: format_time(moment) if moment else None
        for name, moment in (("read_at", flags.read_at), ("seen_at", flags.seen_at), ("archived_at", flags.archived_at))
    }


def add_position(type_: FrameType, position: bytes, body: bytes, *, is_repeat: bool = False) -> bytes:
    """A frame of the stream for one socket: the body is spliced behind what differs by socket, never parsed."""
    if type_ is FrameType.NOTIFICATION:
        repeat = b"true" if is_repeat else b"false"
        return b'{"type":"notification","position":"%b","redelivered":%b,%b' % (position, repeat, body[1:])
    return b'{"type":"%b","position":"%b",%b' % (type_.encode(), position, body[1:])
