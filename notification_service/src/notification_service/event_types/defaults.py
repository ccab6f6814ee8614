"""What an event type fills in where a request is silent, or why the request is refused. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from notification_service.notifications.entity import EventTypeDefaults
from shared_contracts.error_codes import Reason
from shared_contracts.requests import DEFAULT_EVENT_TYPE, Channel, NotificationRequest, Priority


@dataclass(frozen=True, slots=True)
class UnusableType:
    """The request's event type cannot be used."""

    reason: Reason
    detail: str


def defaults_of(request: NotificationRequest, types: Mapping[tuple[str, str], Any]) -> EventTypeDefaults | UnusableType:
    """The defaults for a request.

    Args:
        request: Its event type may be left out.
        types: Rows by (tenant, code) of every type named in the batch that exists.
    """
    code = request.event_type
    if code is None or code == DEFAULT_EVENT_TYPE:
        return EventTypeDefaults()
    row = types.get((request.tenant, code))
    if row is None:
        return UnusableType(Reason.UNKNOWN_EVENT_TYPE, f"there is no event type {code!r}")
    if not row.is_active:
        return UnusableType(Reason.EVENT_TYPE_INACTIVE, f"the event type {code!r} is switched off")
    return EventTypeDefaults(
        title=row.name,
        category=row.category,
        channels=tuple(Channel(name) for name in row.channels) if row.channels else None,
        priority=Priority(row.priority),
        retention=timedelta(days=row.retention_days) if row.retention_days else None,
    )
