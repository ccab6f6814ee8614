"""What an event type fills in where a request is silent, or why the request is refused. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from notification_service.event_types.entity import PLAIN_MESSAGE, EventType
from notification_service.notifications.entity import EventTypeDefaults
from shared_contracts.error_codes import Reason
from shared_contracts.requests import NotificationRequest


@dataclass(frozen=True, slots=True)
class UnusableType:
    """The request cannot be taken because of its event type, or its data do not fit the type's schema.

    `errors` names fields of the request, each with a sentence.
    """

    reason: Reason
    detail: str
    errors: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class UsableType:
    """The event type of a request, and what it fills in."""

    type: EventType
    defaults: EventTypeDefaults


def find_type(
    request: NotificationRequest, types: Mapping[str, EventType], *, check_data: bool = True
) -> UsableType | UnusableType:
    """The event type of a request.

    Args:
        request: Its event type may be left out.
        types: Of the request's tenant, by code.
        check_data: False for what was checked when it was accepted.
    """
    code = request.event_type
    if code is None or code == PLAIN_MESSAGE.code:
        return UsableType(PLAIN_MESSAGE, EventTypeDefaults())
    found = types.get(code)
    if found is None:
        return UnusableType(Reason.UNKNOWN_EVENT_TYPE, f"there is no event type {code!r}")
    if not found.is_active:
        return UnusableType(Reason.EVENT_TYPE_INACTIVE, f"the event type {code!r} is switched off")
    problems = found.check_data(request.data) if check_data else []
    if problems:
        detail = "; ".join(f"{field}: {message}" for field, message in problems)
        return UnusableType(Reason.INVALID_SCHEMA, detail, tuple(problems))
    return UsableType(
        found,
        EventTypeDefaults(
            category=found.category,
            channels=found.channels,
            priority=found.priority,
            retention=timedelta(days=found.retention_days) if found.retention_days else None,
        ),
    )
