"""Whether a message from the work queue leads to an attempt. Pure: everything was looked up before."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Any, Final

from notification_service.channels.load import Loaded
from shared_contracts.delivery_state import DeliveryState
from shared_contracts.error_codes import Reason

IN_PROGRESS: Final = timedelta(seconds=60)
"""An attempt that began this long ago and never ended has lost its worker: every attempt ends within 40 s."""

_WAITING: Final = frozenset({DeliveryState.PENDING, DeliveryState.QUEUED})


class Step(Enum):
    """What to do with a message."""

    DROP = auto()
    """It is a copy: this attempt is over, or somebody else makes it."""
    PARK = auto()
    """Not now; ask again in a moment."""
    ATTEMPT = auto()
    """Make the attempt."""
    END_UNKNOWN = auto()
    """The attempt was begun, nobody knows how it ended, and a repeat would not be harmless."""
    END = auto()
    """It must not be sent; the reason says why."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What to do, and with which end."""

    step: Step
    status: DeliveryState = DeliveryState.SUPPRESSED
    reason: Reason | None = None


_DROP: Final = Judgement(Step.DROP)
_ATTEMPT: Final = Judgement(Step.ATTEMPT)


def judge(
    loaded: Loaded | None,
    *,
    attempt: int,
    is_redelivered: bool,
    repeats_are_harmless: bool,
    is_suppressed: bool,
    require_verified: bool,
    now: datetime,
) -> Judgement:
    """Decide about one message.

    Args:
        loaded: Everything about the delivery; None: it does not exist (any more).
        attempt: Which attempt the message asks for.
        is_redelivered: The broker has handed it out before.
        repeats_are_harmless: Of the channel.
        is_suppressed: The address is on the suppression list.
        require_verified: Whether contacts must be proved.
        now: When.
    """
    if loaded is None:
        return _DROP
    found = _judge_attempt(loaded.delivery, attempt, now, is_redelivered=is_redelivered)
    if found is not None:
        return found
    if ending := _find_end(loaded, now, is_suppressed=is_suppressed, require_verified=require_verified):
        return ending
    if loaded.delivery.attempts >= attempt and not repeats_are_harmless:
        # Begun before and never ended: its worker is gone, or only its connection. In doubt it gets time to end.
        begun = loaded.delivery.last_attempt_at
        is_over = begun is None or now - begun >= IN_PROGRESS
        return Judgement(Step.END_UNKNOWN) if is_over else Judgement(Step.PARK)
    return _ATTEMPT


def _judge_attempt(row: Any, attempt: int, now: datetime, *, is_redelivered: bool) -> Judgement | None:
    if row.status not in _WAITING or attempt != row.settled_attempts + 1:
        return _DROP
    if row.not_before is not None and row.not_before > now:
        # Held back since; the scheduler publishes it when its time has come.
        return _DROP
    if row.attempts >= attempt and not is_redelivered:
        begun = row.last_attempt_at
        if begun is not None and now - begun < IN_PROGRESS:
            return _DROP
    return None


def _find_end(loaded: Loaded, now: datetime, *, is_suppressed: bool, require_verified: bool) -> Judgement | None:
    notification, user, contact = loaded.notification, loaded.user, loaded.contact
    if notification is None:
        return Judgement(Step.END, DeliveryState.RECALLED, Reason.RECALLED)
    if notification.expires_at is not None and notification.expires_at <= now:
        return Judgement(Step.END, DeliveryState.EXPIRED, Reason.EXPIRED)
    if user is None or not user.is_active:
        return Judgement(Step.END, reason=Reason.RECIPIENT_INACTIVE)
    if loaded.address is None:
        return Judgement(Step.END, reason=Reason.NO_ADDRESS)
    if is_suppressed or (contact is not None and contact.disabled_at is not None):
        return Judgement(Step.END, reason=Reason.ADDRESS_DISABLED)
    if require_verified and not _is_proved(loaded):
        return Judgement(Step.END, reason=Reason.ADDRESS_UNVERIFIED)
    return None


def _is_proved(loaded: Loaded) -> bool:
    if loaded.contact is not None:
        return loaded.contact.verified_at is not None
    return loaded.delivery.channel != "email" or bool(loaded.user.email_verified)
