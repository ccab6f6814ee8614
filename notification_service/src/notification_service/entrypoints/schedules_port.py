"""Digests and schedules as the REST API sees them: `digests.endpoints.Schedules`, filled with the stages' functions."""

from __future__ import annotations

from uuid import UUID

from notification_service.clock import Clock
from notification_service.db.engine import Database
from notification_service.digests import close, schedules
from notification_service.digests.endpoints import (
    PendingDigestOut,
    PendingEntryOut,
    ScheduleIn,
    ScheduleOut,
    first_time,
)
from notification_service.entrypoints.timekeeping import Timekeeper
from notification_service.errors import InvalidSchema, NotFound, PermissionDenied
from notification_service.event_types.catalog import Catalog
from notification_service.event_types.defaults import UnusableType, find_type
from notification_service.identity.access import Caller
from notification_service.intake.check import find_missing_recipients
from notification_service.notifications.entity import Sender
from shared_contracts.problems import FieldError
from shared_contracts.scopes import Scope


class SchedulesPort:
    """See the module."""

    def __init__(self, *, database: Database, catalog: Catalog, timekeeper: Timekeeper, clock: Clock) -> None:
        self._database = database
        self._catalog = catalog
        self._timekeeper = timekeeper
        self._clock = clock

    async def list_pending(self, user_id: UUID) -> list[PendingDigestOut]:
        """What would be told if every digest closed now."""
        now = self._clock.now()
        async with self._database.read() as connection:
            found = await close.find_open(connection, user_id)
            entries = await self._timekeeper.find_entries(connection, found, now) if found else {}
        return [
            PendingDigestOut(
                id=digest.id,
                channel=digest.channel,
                key=digest.key,
                due_at=digest.due_at,
                count=len(entries[digest.id]),
                items=[PendingEntryOut.model_validate(each) for each in entries[digest.id][:100]],
            )
            for digest in found
        ]

    async def create(self, caller: Caller, wanted: ScheduleIn) -> ScheduleOut:
        """Store a schedule; what is wrong with the request is said now, not when it fires."""
        request = wanted.request
        if "tenant" not in request.model_fields_set:
            request = request.model_copy(update={"tenant": caller.tenant})
        if request.tenant != caller.tenant:
            raise PermissionDenied("the notification belongs to another tenant")
        if request.recipients.all and Scope.NOTIFICATIONS_BROADCAST not in caller.scopes:
            raise PermissionDenied(f"a broadcast needs the scope {Scope.NOTIFICATIONS_BROADCAST}")
        if problem := find_missing_recipients(request.recipients, None):
            raise InvalidSchema([problem])
        now = self._clock.now()
        next_at = first_time(wanted, now)
        if next_at is None:
            raise InvalidSchema([FieldError(field="recurrence.until", message="it would never be sent")])
        async with self._database.write() as connection:
            catalog = (await self._catalog.load(connection, {caller.tenant}))[caller.tenant]
            found = find_type(request, catalog.types)
            if isinstance(found, UnusableType):
                errors = found.errors or (("event_type", found.detail),)
                raise InvalidSchema(
                    [FieldError(field=f"request.{field}", message=message) for field, message in errors]
                )
            row = await schedules.insert_schedule(
                connection,
                tenant=caller.tenant,
                sender=Sender(caller.id, caller.name),
                request=request.model_dump(mode="json", exclude={"deliver_at"}, exclude_none=True),
                recurrence=wanted.recurrence.model_dump(mode="json", exclude_none=True) if wanted.recurrence else None,
                next_at=next_at,
                now=now,
            )
        return ScheduleOut.model_validate(dict(row._mapping))  # noqa: SLF001 - SQLAlchemy's public name

    async def list_all(self, caller: Caller, *, after: UUID | None, limit: int) -> list[ScheduleOut]:
        """The caller's, or everybody's for an administrator."""
        async with self._database.read() as connection:
            rows = await schedules.list_schedules(
                connection, tenant=caller.tenant, sender_id=_whose(caller), after=after, limit=limit
            )
        return [ScheduleOut.model_validate(dict(row._mapping)) for row in rows]  # noqa: SLF001

    async def delete(self, caller: Caller, schedule_id: UUID) -> None:
        """Delete a schedule."""
        async with self._database.write() as connection:
            if not await schedules.delete_schedule(
                connection, schedule_id, tenant=caller.tenant, sender_id=_whose(caller)
            ):
                raise NotFound("there is no such schedule")


def _whose(caller: Caller) -> UUID | None:
    return None if Scope.EVENT_TYPES_WRITE in caller.scopes else caller.id
