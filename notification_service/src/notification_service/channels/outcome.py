"""How one attempt, or the decision not to make it, ended. Pure values; `record` writes them down, many at a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from notification_service.channels.load import Loaded
from shared_contracts.delivery_state import DeliveryState
from shared_contracts.error_codes import Reason

MAX_DETAIL_LENGTH: Final = 1000


@dataclass(frozen=True, slots=True)
class AttemptMade:
    """One row of the history.

    Attributes:
        outcome: `sent`, `temporary`, `permanent`, `unknown` or `breaker_open`.
    """

    number: int
    route: str
    started_at: datetime
    latency_ms: int
    outcome: str
    reason: Reason | None = None
    detail: str | None = None
    provider_message_id: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What becomes of a delivery.

    Attributes:
        status: `sent` or `delivered`; `queued`: tried again in a step of the ladder; `pending`: held in the table until
            `not_before`; or an end.
        attempt: The attempt that is settled by this; None: none was made, and the next one has the same number.
        attempts: Rows of the history; more than one when a second provider was tried.
        retry_at: When the next attempt is due; the scheduler makes sure of it.
        disables_contact: The address is gone for good.
        delay, step: The next attempt waits so long, in that step of the ladder.
        share: Whose share of the channel's rate limit it waits for.
    """

    loaded: Loaded
    status: DeliveryState
    attempt: int | None = None
    reason: Reason | None = None
    error: str | None = None
    attempts: tuple[AttemptMade, ...] = ()
    provider_message_id: str | None = None
    not_before: datetime | None = None
    retry_at: datetime | None = None
    disables_contact: bool = False
    rules: list[dict[str, Any]] = field(default_factory=list)
    delay: timedelta | None = None
    step: timedelta | None = None
    share: str | None = None

    @property
    def delivery_id(self) -> UUID:
        """Of the delivery."""
        delivery_id: UUID = self.loaded.delivery.id
        return delivery_id

    @property
    def user_id(self) -> UUID:
        """Of the delivery."""
        user_id: UUID = self.loaded.delivery.user_id
        return user_id

    @property
    def is_end_without_success(self) -> bool:
        """Whether the next channel of the fallback takes over."""
        return self.status in (DeliveryState.FAILED, DeliveryState.SUPPRESSED)
