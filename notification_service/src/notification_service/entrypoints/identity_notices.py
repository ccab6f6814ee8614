"""What users are told of their own accounts: a login from a new device, and a welcome. Sent in as any backend would."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

import orjson
import structlog

from notification_service.broker.publisher import Outcome, Outgoing, Publisher
from notification_service.clock import Clock, format_time
from notification_service.db.engine import Database
from notification_service.errors import Unavailable
from notification_service.event_types.repository import find_event_types
from notification_service.identity.mirror_rows import Event
from shared_contracts.identity_events import IdentityEventType, NewDeviceLoginEvent, UserEvent
from shared_contracts.topology import KEY_EVENT, NOTIFICATIONS_DIRECT

log = structlog.get_logger(__name__)

LOGIN_ALERT: Final = "login.alert"
WELCOME: Final = "user.welcome"

_PAUSES: Final = tuple(timedelta(seconds=each) for each in (0, 1, 4, 10, 30))


@dataclass(frozen=True, slots=True)
class _Notice:
    """What one event leads to."""

    event: Event
    code: str
    user_id: UUID
    data: dict[str, str | None]


class IdentityNotices:
    """Follows the mirror. The event's id is the notification's, so that an event that comes twice is told once."""

    def __init__(self, *, database: Database, publisher: Publisher, clock: Clock) -> None:
        self._database = database
        self._publisher = publisher
        self._clock = clock

    async def on_events(self, events: Sequence[Event]) -> None:
        """Send what these events ask for, where the tenant has the event type switched on."""
        waiting = [notice for event in events if (notice := _notice_of(event)) is not None]
        for pause in _PAUSES:
            if not waiting:
                return
            await self._clock.sleep(pause)
            try:
                waiting = await self._send(waiting)
            except Unavailable as error:
                log.warning("notices_wait", count=len(waiting), problem=error.detail)
        if waiting:
            log.error("notices_not_sent", count=len(waiting))

    async def _send(self, waiting: list[_Notice]) -> list[_Notice]:
        async with self._database.read() as connection:
            types = await find_event_types(connection, {(each.event.tenant, each.code) for each in waiting})
        active = {key for key, row in types.items() if row.is_active}
        usable = [each for each in waiting if (each.event.tenant, each.code) in active]
        outcomes = await self._publisher.publish_all([_make_message(each) for each in usable])
        return [each for each, outcome in zip(usable, outcomes, strict=True) if outcome is not Outcome.OK]


def _notice_of(event: Event) -> _Notice | None:
    match event:
        case NewDeviceLoginEvent(data=login):
            data = {
                "session_id": str(login.session_id),
                "device_name": login.device_name,
                "ip": login.ip,
                "user_agent": login.user_agent,
                "at": format_time(event.occurred_at),
            }
            return _Notice(event, LOGIN_ALERT, login.user_id, data)
        case UserEvent(type=IdentityEventType.USER_CREATED, data=user):
            return _Notice(event, WELCOME, user.id, {"username": user.username})
        case _:
            return None


def _make_message(notice: _Notice) -> Outgoing:
    request = {
        "version": 1,
        "event_type": notice.code,
        "recipients": {"users": [str(notice.user_id)]},
        "data": {name: value for name, value in notice.data.items() if value is not None},
        "tenant": notice.event.tenant,
    }
    return Outgoing(
        exchange=NOTIFICATIONS_DIRECT.name,
        routing_key=KEY_EVENT,
        body=orjson.dumps(request),
        message_id=str(notice.event.event_id),
        app_id="herald",
        timestamp=notice.event.occurred_at,
    )
