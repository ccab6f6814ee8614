"""Presence and live connections over REST: HTTP in, HTTP out."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

import structlog
from fastapi import APIRouter, Depends, Query, Response

from notification_service.errors import InvalidSchema, NotFound, PermissionDenied
from notification_service.identity.access import Caller
from notification_service.presence.board import PresenceView
from notification_service.presence.people import People, Viewer
from notification_service.presence.ports import ConnectionsWanted, Nodes
from notification_service.presence.schemas import (
    ConnectionOut,
    ConnectionsOut,
    ConnectionsQuery,
    DeviceOut,
    PresenceOut,
    PresencesOut,
    UserIds,
)
from notification_service.rest.callers import Callers
from notification_service.rest.json_route import JsonRoute
from notification_service.rest.pages import Cursors
from shared_contracts.problems import FieldError
from shared_contracts.scopes import Scope
from shared_contracts.ws.frames import MAX_PRESENCE_USERS

log = structlog.get_logger(__name__)


def make_presence_router(nodes: Nodes, people: People, callers: Callers, cursors: Cursors) -> APIRouter:
    """`/presence` and `/connections`."""
    router = APIRouter(prefix="/api/v1", tags=["presence"], route_class=JsonRoute)
    Anyone = Annotated[Caller, Depends(callers.needs())]  # noqa: N806 - a type
    Staff = Annotated[Caller, Depends(callers.needs(Scope.PRESENCE_READ))]  # noqa: N806 - a type
    Admin = Annotated[Caller, Depends(callers.needs(Scope.USERS_WRITE, sensitive=True))]  # noqa: N806 - a type

    @router.get("/presence", summary="Who is there")
    async def get_presence(caller: Anyone, user_ids: Annotated[UserIds, Query()]) -> PresencesOut:
        """Up to 500 users, repeated or separated by commas: oneself, people of a shared group, and with the right
        `presence:read` everyone of the tenant. With the right, users that do not exist are left out; without it, one
        that may not be seen refuses the call.
        """
        wanted = _read_ids(user_ids)
        sees_tenant = Scope.PRESENCE_READ in caller.scopes
        visible = await people.look(Viewer(caller.id, caller.tenant, sees_tenant), wanted)
        if not sees_tenant and len(visible) < len(wanted):
            raise PermissionDenied("presence of users outside your groups needs the scope presence:read")
        shown = [user_id for user_id in wanted if user_id in visible]
        return PresencesOut(items=[_describe(nodes.describe_presence(each), visible[each]) for each in shown])

    @router.get("/connections", summary="Live connections over all nodes")
    async def list_connections(caller: Staff, query: Annotated[ConnectionsQuery, Query()]) -> ConnectionsOut:
        """Of the caller's tenant, the oldest first."""
        scope = f"connections:{caller.tenant}"
        after = cursors.read(scope, query.cursor)
        wanted = ConnectionsWanted(caller.tenant, query.user_id, UUID(after) if after else None, query.limit + 1)
        rows, missing = await nodes.list_connections(wanted)
        page = rows[: query.limit]
        following = cursors.write(scope, str(page[-1].id)) if len(rows) > query.limit else None
        items = [ConnectionOut.model_validate(row, from_attributes=True) for row in page]
        return ConnectionsOut(items=items, next_cursor=following, missing_nodes=missing)

    @router.delete("/connections/{connection_id}", status_code=204, summary="End a connection")
    async def end_connection(connection_id: UUID, caller: Admin) -> Response:
        """It is closed with 4505, wherever it is: its client does not return by itself."""
        if not await nodes.close_connection(connection_id, caller.tenant):
            raise NotFound("there is no such connection")
        log.info("connection_ended_by_admin", connection_id=str(connection_id), user_id=str(caller.id))
        return Response(status_code=204)

    return router


def _read_ids(given: list[str]) -> list[UUID]:
    parts = [part.strip() for value in given for part in value.split(",") if part.strip()]
    try:
        ids = list(dict.fromkeys(UUID(part) for part in parts))
    except ValueError:
        raise InvalidSchema([FieldError(field="user_ids", message="each must be a UUID")]) from None
    if not 1 <= len(ids) <= MAX_PRESENCE_USERS:
        raise InvalidSchema([FieldError(field="user_ids", message=f"1 to {MAX_PRESENCE_USERS} users are taken")])
    return ids


def _describe(view: PresenceView, stored: datetime | None) -> PresenceOut:
    return PresenceOut(
        user_id=view.user_id,
        status=view.status,
        last_seen_at=view.last_seen_at or stored,
        device_count=len(view.devices),
        devices=[DeviceOut(device_id=device_id, status=status) for device_id, status in view.devices.items()],
    )
