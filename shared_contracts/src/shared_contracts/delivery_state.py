"""The life of one delivery (contract section 7). Engagement (seen, read, archived) is a separate axis."""

from __future__ import annotations

from enum import StrEnum


class DeliveryState(StrEnum):
    """States in order, then the ends that are not success. Every such end has a `Reason`."""

    PENDING = "pending"
    QUEUED = "queued"
    SENT = "sent"
    DELIVERED = "delivered"
    ACKED = "acked"
    SUPPRESSED = "suppressed"
    FAILED = "failed"
    EXPIRED = "expired"
    RECALLED = "recalled"

    @property
    def is_terminal(self) -> bool:
        """Whether nothing follows. `sent` is where channels without receipts stop, but a receipt may still come."""
        return self in _TERMINAL


_ORDER = (
    DeliveryState.PENDING,
    DeliveryState.QUEUED,
    DeliveryState.SENT,
    DeliveryState.DELIVERED,
    DeliveryState.ACKED,
)
_UNSUCCESSFUL = frozenset(
    {DeliveryState.SUPPRESSED, DeliveryState.FAILED, DeliveryState.EXPIRED, DeliveryState.RECALLED}
)
_TERMINAL = _UNSUCCESSFUL | {DeliveryState.ACKED}


def may_follow(before: DeliveryState, after: DeliveryState) -> bool:
    """Whether `after` may replace `before`: forwards only, and nothing replaces an end."""
    if before.is_terminal:
        return False
    if after in _UNSUCCESSFUL:
        return True
    return _ORDER.index(after) > _ORDER.index(before)
