"""`GET /deliveries`: deliveries of all channels in one list, from the mailbox and from the channels."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field
from sqlalchemy import Select, literal, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.channels.models import deliveries
from notification_service.channels.views import COLUMNS, describe, list_attempts
from notification_service.clock import Clock
from notification_service.db.engine import Database
from notification_service.dead_letters.endpoints import AttemptOut
from notification_service.errors import NotFound, PermissionDenied
from notification_service.identity.access import Caller
from notification_service.mailbox.deliveries import IN_APP
from notification_service.mailbox.delivery_list import Wanted, list_in_app
from notification_service.mailbox.status_endpoints import DeliveriesOut, DeliveryOut
from notification_service.notifications.models import notifications
from notification_service.rest.callers import Callers
from notification_service.rest.json_route import JsonRoute
from notification_service.rest.pages import DEFAULT_LIMIT, CursorParameter, Cursors, LimitParameter
from shared_contracts.delivery_state import DeliveryState
from shared_contracts.json_types import Moment
from shared_contracts.requests import Channel
from shared_contracts.scopes import Scope


class DeliveryQuery(BaseModel):
    """Which deliveries."""

    notification_id: UUID | None = None
    user_id: UUID | None = None
    channel: Channel | None = None
    status: DeliveryState | None = None
    from_: Moment | None = Field(None, alias="from", description="Created at this time or later.")
    to: Moment | None = Field(None, description="Created before.")
    limit: LimitParameter = DEFAULT_LIMIT
    cursor: CursorParameter = None


class DeliveryDetailOut(DeliveryOut):
    """One delivery with its history."""

    history: list[AttemptOut]


def make_delivery_router(database: Database, clock: Clock, callers: Callers, cursors: Cursors) -> APIRouter:
    """`/deliveries`."""
    router = APIRouter(prefix="/api/v1/deliveries", tags=["deliveries"], route_class=JsonRoute)
    AnyCaller = Annotated[Caller, Depends(callers.needs())]  # noqa: N806 - a type

    @router.get("", summary="List deliveries")
    async def list_all(caller: AnyCaller, query: Annotated[DeliveryQuery, Query()]) -> DeliveriesOut:
        """The newest first, of the tenant with `deliveries:read`, else of what the caller sent.

        Broadcasts' in-app deliveries, one for every user, are shown by the status of their notification only.
        """
        _check_right(caller)
        wanted = query.model_dump(mode="json", exclude={"limit", "cursor"})
        scope = f"deliveries:{caller.id}:{wanted}"
        place = cursors.read(scope, query.cursor)
        before = (datetime.fromisoformat(place[0]), UUID(place[1]), UUID(place[2])) if place else None
        now = clock.now()
        items: list[dict[str, Any]] = []
        async with database.read() as connection:
            if query.channel is not Channel.IN_APP:
                items += await _list_channels(connection, caller, query, before)
            if query.channel in (None, Channel.IN_APP):
                in_app = Wanted(
                    tenant=caller.tenant,
                    limit=query.limit + 1,
                    before=before,
                    sender_id=None if Scope.DELIVERIES_READ in caller.scopes else caller.id,
                    notification_id=query.notification_id,
                    user_id=query.user_id,
                    status=query.status,
                    since=query.from_,
                    until=query.to,
                )
                items += await list_in_app(connection, in_app, now=now)
        # In-app and other deliveries of one notification to one user have one time: the place is after all of them.
        items.sort(key=_place, reverse=True)
        page = items[: query.limit]
        last = page[-1] if len(items) > query.limit else None
        next_place = [last["created_at"].isoformat(), *map(str, _place(last)[1:])] if last is not None else None
        return DeliveriesOut(
            items=[DeliveryOut.model_validate(item) for item in page],
            next_cursor=cursors.write(scope, next_place) if next_place else None,
        )

    @router.get("/{delivery_id}", summary="One delivery with every attempt")
    async def get_one(delivery_id: UUID, user_id: UUID, caller: AnyCaller) -> DeliveryDetailOut:
        """Over an outgoing channel. `user_id` is the recipient's."""
        _check_right(caller)
        columns = deliveries.c
        statement = _restrict(select(*COLUMNS), caller).where(columns.user_id == user_id, columns.id == delivery_id)
        async with database.read() as connection:
            row = (await connection.execute(statement)).one_or_none()
            if row is None:
                raise NotFound("there is no such delivery")
            history = (await list_attempts(connection, [delivery_id])).get(delivery_id, [])
        return DeliveryDetailOut.model_validate({**describe(row), "history": history})

    return router


async def explain_delivery(
    connection: AsyncConnection, key: tuple[UUID, UUID]
) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """`dead_letters.endpoints.Explain`."""
    user_id, delivery_id = key
    asked = (
        await connection.execute(
            select(
                notifications.c.id,
                notifications.c.event_type,
                notifications.c.title,
                notifications.c.body,
                notifications.c.data,
                notifications.c.actions,
                notifications.c.priority,
                notifications.c.category,
                notifications.c.tags,
                notifications.c.collapse_key,
                notifications.c.created_at,
                notifications.c.expires_at,
            )
            .join(deliveries, deliveries.c.notification_id == notifications.c.id)
            .where(deliveries.c.user_id == user_id, deliveries.c.id == delivery_id)
        )
    ).one_or_none()
    history = (await list_attempts(connection, [delivery_id])).get(delivery_id, [])
    return (dict(asked._mapping) if asked is not None else None), history  # noqa: SLF001 - public, despite its name


def _check_right(caller: Caller) -> None:
    if not caller.scopes & {Scope.DELIVERIES_READ, Scope.NOTIFICATIONS_SEND}:
        raise PermissionDenied(
            f"this needs the scope {Scope.DELIVERIES_READ}, or {Scope.NOTIFICATIONS_SEND} for one's own"
        )


def _restrict(query: Select[Any], caller: Caller) -> Select[Any]:
    query = query.where(deliveries.c.tenant == caller.tenant)
    if Scope.DELIVERIES_READ in caller.scopes:
        return query
    own = select(literal(1)).where(
        notifications.c.id == deliveries.c.notification_id, notifications.c.sender_id == caller.id
    )
    return query.where(own.exists())


async def _list_channels(
    connection: AsyncConnection, caller: Caller, query: DeliveryQuery, before: tuple[datetime, UUID, UUID] | None
) -> list[dict[str, Any]]:
    columns = deliveries.c
    statement = _restrict(select(*COLUMNS), caller)
    for column, value in (
        (columns.notification_id, query.notification_id),
        (columns.user_id, query.user_id),
        (columns.channel, query.channel),
        (columns.status, query.status),
    ):
        if value is not None:
            statement = statement.where(column == value)
    if query.from_ is not None:
        statement = statement.where(columns.created_at >= query.from_)
    if query.to is not None:
        statement = statement.where(columns.created_at < query.to)
    if before is not None:
        statement = statement.where(tuple_(columns.created_at, columns.id, columns.user_id) < tuple_(*before))
    statement = statement.order_by(columns.created_at.desc(), columns.id.desc(), columns.user_id.desc())
    rows = await connection.execute(statement.limit(query.limit + 1))
    return [describe(row) for row in rows]


def _place(item: dict[str, Any]) -> tuple[datetime, UUID, UUID]:
    own = item["notification_id"] if item["channel"] == IN_APP else item["id"]
    return item["created_at"], own, item["user_id"]
