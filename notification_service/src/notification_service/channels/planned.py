"""What routing decides about one user and one outgoing channel. Pure values."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from shared_contracts.delivery_state import DeliveryState
from shared_contracts.error_codes import Reason


@dataclass(frozen=True, slots=True)
class PlannedDelivery:
    """One user's delivery over one channel, before its addresses are known.

    Attributes:
        status: `pending`, or `suppressed` with its reason.
        reason: Why it is suppressed; a pending one may carry why it waits (`quiet_hours`).
        rules: What was read to decide, for the trace.
        not_before: Held back until then.
        fallback: Channels to try instead, in order, when this one ends without success.
        sender: Who asked for the notification, for turns between senders.
    """

    notification_id: UUID
    user_id: UUID
    tenant: str
    channel: str
    status: Literal[DeliveryState.PENDING, DeliveryState.SUPPRESSED] = DeliveryState.PENDING
    reason: Reason | None = None
    rules: list[dict[str, Any]] = field(default_factory=list)
    not_before: datetime | None = None
    fallback: tuple[str, ...] = ()
    sender: str = ""


@dataclass(frozen=True, slots=True)
class KeptDelivery:
    """A delivery that is stored and to be published now.

    Attributes:
        share: Whose it is (`admission.make_share`).
    """

    id: UUID
    user_id: UUID
    channel: str
    share: str = ""


@dataclass(frozen=True, slots=True)
class Reach:
    """What this installation can send over.

    Attributes:
        configured: Channels that have all their settings.
        require_verified: Whether addresses must be proved before they are used.
        withdrawing, editing: Those of the configured that can take back, or change, what they have sent.
    """

    configured: frozenset[str]
    require_verified: bool = False
    withdrawing: frozenset[str] = frozenset()
    editing: frozenset[str] = frozenset()


def make_delivery_id(notification_id: UUID, user_id: UUID, channel: str, contact_id: UUID | None) -> UUID:
    """The id of a delivery: always the same for the same one, so that planning it twice stores it once."""
    return uuid.uuid5(notification_id, f"{channel}:{user_id}:{contact_id or ''}")
