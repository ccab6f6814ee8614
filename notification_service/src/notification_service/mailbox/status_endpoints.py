"""How far a notification has come: for its sender, and for staff."""

from datetime import datetime
from typing import Annotated, Any, Protocol
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from pydantic import AwareDatetime, BaseModel, Field
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.clock import Clock
from notification_service.db.base import AnyRow
from notification_service.db.engine import Database
from notification_service.errors import NotFound
from notification_service.identity.access import Caller
from notification_service.mailbox.deliveries import IN_APP, count_by_state, list_deliveries
from notification_service.notifications.models import notifications
from notification_service.notifications.stages import Stage, describe_stage
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
    status: Stage
    created_at: AwareDatetime
    recipients_count: int | None = Field(description="Null until it was routed.")
    counts_by_channel_and_state: dict[str, dict[str, int]]
    problems: list[dict[str, Any]]
    deliveries: DeliveriesOut


class OtherDeliveries(Protocol):
    """Deliveries over other channels; the entrypoints hand them over, because stages do not import each other."""

    async def count(self, connection: AsyncConnection, notification_id: UUID) -> dict[str, dict[str, int]]:
        """How many are in which state, by channel."""

    async def list(
        self, connection: AsyncConnection, notification_id: UUID, *, after: tuple[UUID, UUID] | None, limit: int
    ) -> list[dict[str, Any]]:
        """At most `limit`, in the order of (user, id)."""


class StatusQuery(BaseModel):
    """Which page of the deliveries."""

    limit: LimitParameter = DEFAULT_LIMIT
    cursor: CursorParameter = None


def make_status_router(
    database: Database, clock: Clock, callers: Callers, cursors: Cursors, others: OtherDeliveries
) -> APIRouter:
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
        place = cursors.read(scope, query.cursor)
        now = clock.now()
        async with database.read() as connection:
            row = (
                await connection.execute(select(notifications).where(notifications.c.id == notification_id))
            ).one_or_none()
            if row is None or not _may_see(caller, row):
                raise NotFound("there is no such notification")
            counts = await count_by_state(connection, row, now=now)
            counts_of_others = await others.count(connection, row.id)
            items, next_place = await _read_page(connection, row, others, place, limit=query.limit, now=now)
        return StatusOut(
            id=row.id,
            status=describe_stage(row),
            created_at=row.created_at,
            recipients_count=row.recipients_count,
            counts_by_channel_and_state={**({IN_APP: counts} if counts else {}), **counts_of_others},
            problems=row.problems or [],
            deliveries=DeliveriesOut(
                items=[DeliveryOut.model_validate(item) for item in items],
                next_cursor=cursors.write(scope, next_place) if next_place else None,
            ),
        )

    return router


async def _read_page(
    connection: AsyncConnection,
    row: AnyRow,
    others: OtherDeliveries,
    place: list[str] | None,
    *,
    limit: int,
    now: datetime,
) -> tuple[list[dict[str, Any]], list[str] | None]:
    """One page, and the place after it: the in-app deliveries first, `[user]`, then the others, `[user, delivery]`."""
    items: list[dict[str, Any]] = []
    after: tuple[UUID, UUID] | None = None
    if place is not None and len(place) == 2:
        after = UUID(place[0]), UUID(place[1])
    else:
        page = await list_deliveries(connection, row, after=UUID(place[0]) if place else None, limit=limit, now=now)
        items = page.items
        if page.next_user is not None:
            return items, [str(page.next_user)]
    room = max(1, limit - len(items))
    found = await others.list(connection, row.id, after=after, limit=room + 1)
    items += found[:room]
    last = found[room - 1] if len(found) > room else None
    return items, [str(last["user_id"]), str(last["id"])] if last is not None else None


def _may_see(caller: Caller, row: AnyRow) -> bool:
    if row.tenant != caller.tenant:
        return False
    if Scope.DELIVERIES_READ in caller.scopes or row.sender_id == caller.id:
        return True
    # What came over AMQP has no authenticated sender; the tenant's own backends may follow it.
    return row.sender_id is None and caller.is_service and Scope.NOTIFICATIONS_SEND in caller.scopes
