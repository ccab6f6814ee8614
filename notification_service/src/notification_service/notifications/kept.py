"""What the mailbox kept and dispatch publishes."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from notification_service.notifications.entity import Notification


@dataclass(frozen=True, slots=True)
class Counts:
    """What a badge shows: items neither archived nor removed, broadcasts included."""

    unread: int
    unseen: int
    total: int


@dataclass(frozen=True, slots=True)
class KeptItem:
    """One item in one user's stream.

    Attributes:
        seq: Its number in the stream.
        counts: After this item.
        has_queue: Whether RabbitMQ has the user's queue, as far as the database knows.
        queue_generation: How often the queue had been declared then; see `user_streams`.
        is_silent: Quiet hours: devices show it without sound and banner.
        muted_devices: Of this user: they do the same.
    """

    user_id: UUID
    seq: int
    notification: Notification
    counts: Counts
    has_queue: bool
    queue_generation: int
    is_silent: bool = False
    muted_devices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KeptBroadcast:
    """One entry of a tenant's broadcast log."""

    seq: int
    notification: Notification
