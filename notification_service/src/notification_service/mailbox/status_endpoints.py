"""How far a notification has come: for its sender, and for staff."""

from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from pydantic import AwareDatetime, BaseModel, Field
from sqlalchemy import select

from notification_service.clock import Clock
from notification_service.db.base import AnyRow
from notification_service.db.engine import Database
from notification_service.errors import NotFound
from notification_service.identity.access import Caller
from notification_service.mailbox.deliveries import IN_APP, count_by_state, list_deliveries
from notification_service.notifications.models import notifications
from notification_service.rest.callers import Callers
from notification_service.rest.json_route import JsonRoute
from notification_service.rest.pages import DEFAULT_LIMIT, CursorParameter, Cursors, LimitParameter
from shared_contracts.scopes import Scope


class DeliveryOut(BaseModel):
    """One channel's try for one recipient."""

    id: UUID
    notification_id: UUID
    user_id: UUID | None = Field(description="Null when the recipient does not exist; `recipient` names it then.")
    recipient: str | None = None
    channel: str
    status: str
    reason: str | None
    attempts: int
    created_at: AwareDatetime
    last_attempt_at: AwareDatetime | None
    delivered_at: AwareDatetime | None
    provider_message_id: str | None
    error: str | None
    seen_at: AwareDatetime | None = None
    read_at: AwareDatetime | None = None
    archived_at: AwareDatetime | None = None


class DeliveriesOut(BaseModel):
    """A page of deliveries."""

    items: list[DeliveryOut]
    next_cursor: str | None


class StatusOut(BaseModel):
    """One notification and its deliveries."""

    id: UUID
    status: Literal["accepted", "scheduled", "processing", "dispatched"]
    created_at: AwareDatetime
    recipients_count: int | None = Field(description="Null until it was routed.")
    counts_by_channel_and_state: dict[str, dict[str, int]]
    problems: list[dict[str, Any]]
    deliveries: DeliveriesOut


class StatusQuery(BaseModel):
    """Which page of the deliveries."""

    limit: LimitParameter = DEFAULT_LIMIT
    cursor: CursorParameter = None


def make_status_router(database: Database, clock: Clock, callers: Callers, cursors: Cursors) -> APIRouter:
    """`GET /notifications/status/{id}`."""
    router = APIRouter(prefix="/api/v1/notifications", tags=["notifications"], route_class=JsonRoute)

    @router.get("/status/{notification_id}", summary="How far a notification has come")
    async def get_status(
        notification_id: UUID,
        caller: Annotated[Caller, Depends(callers.needs())],
        query: Annotated[StatusQuery, Query()],
    ) -> StatusOut:
        """For its sender, and with `deliveries:read` for everybody's in the tenant; anyone else gets 404."""
        scope = f"deliveries:{notification_id}"
        after = cursors.read(scope, query.cursor)
        now = clock.now()
        async with database.read() as connection:
            row = (
                await connection.execute(select(notifications).where(notifications.c.id == notification_id))
            ).one_or_none()
            if row is None or not _may_see(caller, row):
                raise NotFound("there is no such notification")
            counts = await count_by_state(connection, row, now=now)
            page = await list_deliveries(
                connection, row, after=UUID(after) if after else None, limit=query.limit, now=now
            )
        return StatusOut(
            id=row.id,
            status=_describe_stage(row),
            created_at=row.created_at,
            recipients_count=row.recipients_count,
            counts_by_channel_and_state={IN_APP: counts} if counts else {},
            problems=row.problems or [],
            deliveries=DeliveriesOut(
                items=[DeliveryOut.model_validate(item) for item in page.items],
                next_cursor=cursors.write(scope, str(page.next_user)) if page.next_user else None,
            ),
        )

    return router


def _may_see(caller: Caller, row: AnyRow) -> bool:
    if row.tenant != caller.tenant:
        return False
    if Scope.DELIVERIES_READ in caller.scopes or row.sender_id == caller.id:
        return True
    # What came over AMQP has no authenticated sender; the tenant's own backends may follow it.
    return row.sender_id is None and caller.is_service and Scope.NOTIFICATIONS_SEND in caller.scopes


def _describe_stage(row: AnyRow) -> Literal["accepted", "scheduled", "processing", "dispatched"]:
    if row.dispatched_at is not None:
        return "dispatched"
    if row.routed_at is not None:
        return "processing"
    return "scheduled" if row.deliver_at is not None else "accepted"
