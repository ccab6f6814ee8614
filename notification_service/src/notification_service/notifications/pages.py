"""What a device missed, as the mailbox hands it to the gateway; and what it hands to dispatch besides new items."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal, NamedTuple
from uuid import UUID

from notification_service.notifications.kept import Counts


class FrameType(StrEnum):
    """Frames that come out of the user's stream; also the AMQP property `type` of what travels in user queues."""

    NOTIFICATION = "notification"
    STATE = "state"
    RECALLED = "recalled"
    UPDATED = "updated"


class Entry(NamedTuple):
    """One frame of a page. A tuple: a page has many, and a frozen dataclass takes four times as long to make.

    Attributes:
        number: Its `seq`, or its number in the broadcast log.
        is_broadcast: Which of the two.
        body: The JSON object without `type`, `position` and `redelivered`, which the session puts in front.
    """

    number: int
    is_broadcast: bool
    type: FrameType
    body: bytes


@dataclass(frozen=True, slots=True)
class StreamFrame:
    """One frame of a user's stream to be published; `has_queue` and `queue_generation` as in `KeptItem`."""

    user_id: UUID
    seq: int
    type: FrameType
    body: bytes
    has_queue: bool
    queue_generation: int


@dataclass(frozen=True, slots=True)
class Page:
    """What changed since a position, in order, up to a limit.

    Attributes:
        entries: Frames to send.
        seq: The stream is complete up to here once the entries are sent (numbers without an entry were compacted).
        broadcast: The same for the broadcast log.
        has_more: Whether the limit cut something off.
    """

    entries: list[Entry]
    seq: int
    broadcast: int
    has_more: bool


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far one device has come."""

    acked_seq: int
    acked_broadcast: int
    sent_seq: int
    sent_broadcast: int


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """One user's stream at the moment a device connects.

    Attributes:
        epoch: Of this store; part of every position.
        top_seq, floor_seq: The last number, and the number up to which items may be gone.
        top_broadcast, floor_broadcast: The same for the tenant's broadcast log.
        acked_seq, acked_broadcast: The furthest any device of the user acknowledged.
        broadcast_floor: Broadcasts up to here were before this user's time.
        cursor: Of the device; None when it never connected before.
    """

    user_id: UUID
    epoch: str
    top_seq: int
    floor_seq: int
    top_broadcast: int
    floor_broadcast: int
    acked_seq: int
    acked_broadcast: int
    broadcast_floor: int
    counts: Counts
    cursor: Cursor | None


StateLabel = Literal[
    "read", "unread", "seen", "archived", "unarchived", "deleted", "snoozed", "unsnoozed", "pinned", "unpinned"
]
WithdrawLabel = Literal["recalled", "collapsed", "expired"]
UPDATED_LABEL: Final = "updated"
WITHDRAW_LABELS: Final[tuple[WithdrawLabel, ...]] = ("recalled", "collapsed", "expired")
"""Words of changes that the sender, a newer item or time made: each takes the item out of the inbox."""
