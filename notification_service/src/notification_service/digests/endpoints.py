"""Digests and schedules over REST."""

from datetime import datetime
from typing import Annotated, Any, Protocol
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Response
from pydantic import AwareDatetime, BaseModel, Field, model_validator

from notification_service.digests.recurrence import Recurrence, next_time
from notification_service.identity.access import Caller
from notification_service.rest.callers import Callers
from notification_service.rest.json_route import JsonRoute
from notification_service.rest.pages import DEFAULT_LIMIT, CursorParameter, Cursors, LimitParameter
from shared_contracts.json_types import Moment
from shared_contracts.requests import NotificationRequest
from shared_contracts.scopes import Scope


class PendingEntryOut(BaseModel):
    """One notification that waits in a digest."""

    notification_id: UUID
    title: str
    body: str
    created_at: AwareDatetime


class PendingDigestOut(BaseModel):
    """One open digest: what it would tell if it closed now."""

    id: UUID
    channel: str
    key: str = Field(description="`quiet_hours`, `preference`, `weekly` or `type:<code>`.")
    due_at: AwareDatetime
    count: int
    items: list[PendingEntryOut]


class PendingOut(BaseModel):
    """All open digests of the caller, the next one first."""

    items: list[PendingDigestOut]
    next_cursor: str | None = None


class ScheduleIn(BaseModel):
    """A request, and when it is sent: once at `first_at`, or again and again."""

    request: NotificationRequest
    recurrence: Recurrence | None = None
    first_at: Moment | None = Field(default=None, description="Left out: the recurrence's next time.")

    @model_validator(mode="after")
    def _check_time(self) -> "ScheduleIn":
        if self.recurrence is None and self.first_at is None:
            raise ValueError("recurrence or first_at must be given")
        return self


class ScheduleOut(BaseModel):
    """A schedule."""

    id: UUID
    request: dict[str, Any]
    recurrence: dict[str, Any] | None
    next_at: AwareDatetime | None = Field(description="Null: it is over.")
    fired_count: int
    created_at: AwareDatetime


class SchedulesOut(BaseModel):
    """A page, by age."""

    items: list[ScheduleOut]
    next_cursor: str | None


class Schedules(Protocol):
    """Digests and schedules; the entrypoints fill this in, because both send."""

    async def list_pending(self, user_id: UUID) -> list[PendingDigestOut]:
        """Open digests of a user."""

    async def create(self, caller: Caller, wanted: ScheduleIn) -> ScheduleOut:
        """Store a schedule."""

    async def list_all(self, caller: Caller, *, after: UUID | None, limit: int) -> list[ScheduleOut]:
        """The caller's, or everybody's for an administrator."""

    async def delete(self, caller: Caller, schedule_id: UUID) -> None:
        """Delete a schedule."""


class ListQuery(BaseModel):
    """Which page."""

    limit: LimitParameter = DEFAULT_LIMIT
    cursor: CursorParameter = None


def make_digest_router(schedules: Schedules, callers: Callers, cursors: Cursors) -> APIRouter:
    """`/digests` and `/schedules`."""
    router = APIRouter(prefix="/api/v1", tags=["digests and schedules"], route_class=JsonRoute)
    Owner = Annotated[Caller, Depends(callers.needs(Scope.INBOX))]  # noqa: N806 - a type
    Sender = Annotated[Caller, Depends(callers.needs(Scope.NOTIFICATIONS_SEND))]  # noqa: N806 - a type

    @router.get("/digests/pending", summary="What the next digests hold")
    async def list_pending(caller: Owner) -> PendingOut:
        """By the same code that closes them: what was read meanwhile is left out."""
        return PendingOut(items=await schedules.list_pending(caller.id))

    @router.post("/schedules", status_code=201, summary="Send later, or again and again")
    async def create(wanted: ScheduleIn, caller: Sender, response: Response) -> ScheduleOut:
        """At local times, right on the days the clocks change; each time once, whatever crashes."""
        made = await schedules.create(caller, wanted)
        response.headers["Location"] = f"/api/v1/schedules/{made.id}"
        return made

    @router.get("/schedules", summary="List schedules")
    async def list_schedules(caller: Sender, query: Annotated[ListQuery, Query()]) -> SchedulesOut:
        """The caller's own; an administrator sees everybody's."""
        scope = f"schedules:{caller.id}"
        after = cursors.read(scope, query.cursor)
        rows = await schedules.list_all(caller, after=UUID(after) if after else None, limit=query.limit + 1)
        page = rows[: query.limit]
        following = cursors.write(scope, str(page[-1].id)) if len(rows) > query.limit else None
        return SchedulesOut(items=page, next_cursor=following)

    @router.delete("/schedules/{schedule_id}", status_code=204, summary="Delete a schedule")
    async def delete(schedule_id: UUID, caller: Sender) -> Response:
        """It fires no more."""
        await schedules.delete(caller, schedule_id)
        return Response(status_code=204)

    return router


def first_time(wanted: ScheduleIn, now: datetime) -> datetime | None:
    """When a new schedule fires first; None: never."""
    if wanted.first_at is not None:
        return max(wanted.first_at, now)
    assert wanted.recurrence is not None
    return next_time(wanted.recurrence.model_dump(mode="json", exclude_none=True), now)
