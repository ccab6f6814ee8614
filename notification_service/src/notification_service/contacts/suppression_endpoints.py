"""The suppression list over REST: look, add, allow again. Only with the right for it."""

from typing import Annotated
from uuid import UUID

import structlog
from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import AwareDatetime, BaseModel, Field

from notification_service.clock import Clock
from notification_service.contacts.suppressions import (
    Suppression,
    allow_address,
    list_suppressions,
    suppress_addresses,
)
from notification_service.db.engine import Database
from notification_service.errors import NotFound
from notification_service.identity.access import Caller
from notification_service.identity.audit import record
from notification_service.rest.callers import Callers
from notification_service.rest.json_route import JsonRoute
from notification_service.rest.pages import DEFAULT_LIMIT, CursorParameter, Cursors, LimitParameter
from shared_contracts.requests import Channel
from shared_contracts.scopes import Scope
from shared_contracts.text import Line, Text

log = structlog.get_logger(__name__)


class SuppressionOut(BaseModel):
    """One address nothing is sent to."""

    id: str = Field(description="Of the address: SHA-256, which does not show it.")
    channel: str
    address: str = Field(description="What may be shown of it.")
    reason: str
    user_id: UUID | None = Field(description="Whose it was when the provider refused it.")
    created_at: AwareDatetime


class SuppressionsOut(BaseModel):
    """A page."""

    items: list[SuppressionOut]
    next_cursor: str | None


class SuppressionIn(BaseModel):
    """An address to suppress."""

    channel: Channel
    address: Annotated[Text, Field(min_length=1, max_length=8192)] = Field(
        description="As contacts and accounts have it: a number in international form, an address in lower case."
    )
    reason: Annotated[Line, Field(min_length=1, max_length=40)] = "complaint"


class SuppressionQuery(BaseModel):
    """Which."""

    channel: Channel | None = None
    limit: LimitParameter = DEFAULT_LIMIT
    cursor: CursorParameter = None


def make_suppression_router(database: Database, clock: Clock, callers: Callers, cursors: Cursors) -> APIRouter:
    """`/suppressions` and everything below it."""
    router = APIRouter(prefix="/api/v1/suppressions", tags=["contacts"], route_class=JsonRoute)
    Keeper = Annotated[Caller, Depends(callers.needs(Scope.DEAD_LETTERS))]  # noqa: N806 - a type
    AddressHash = Annotated[str, Path(pattern="^[0-9a-f]{64}$")]  # noqa: N806 - a type

    @router.get("", summary="List suppressed addresses")
    async def list_all(caller: Keeper, query: Annotated[SuppressionQuery, Query()]) -> SuppressionsOut:
        """Of the caller's tenant, by channel."""
        scope = f"suppressions:{caller.tenant}:{query.channel}"
        place = cursors.read(scope, query.cursor)
        async with database.read() as connection:
            rows = await list_suppressions(
                connection,
                tenant=caller.tenant,
                channel=query.channel,
                after=(place[0], place[1]) if place else None,
                limit=query.limit + 1,
            )
        page = rows[: query.limit]
        last = [page[-1].channel, page[-1].address_hash] if len(rows) > query.limit else None
        return SuppressionsOut(
            items=[
                SuppressionOut(
                    id=row.address_hash,
                    channel=row.channel,
                    address=row.hint,
                    reason=row.reason,
                    user_id=row.user_id,
                    created_at=row.created_at,
                )
                for row in page
            ],
            next_cursor=cursors.write(scope, last) if last else None,
        )

    @router.post("", status_code=204, summary="Suppress an address")
    async def suppress(given: SuppressionIn, caller: Keeper) -> Response:
        """Nothing is sent there any more, whoever it belongs to; what waits for it ends as `address_disabled`."""
        now = clock.now()
        async with database.write() as connection:
            wanted = Suppression(caller.tenant, given.channel, given.address, given.reason)
            await suppress_addresses(connection, [wanted], now=now)
            await record(connection, caller, "address.suppressed", now=now, details={"channel": str(given.channel)})
        log.info("address_suppressed", channel=given.channel, by=str(caller.id))
        return Response(status_code=204)

    @router.delete("/{channel}/{address_id}", status_code=204, summary="Allow an address again")
    async def allow(channel: Channel, address_id: AddressHash, caller: Keeper) -> Response:
        """What was suppressed meanwhile is not sent."""
        now = clock.now()
        async with database.write() as connection:
            if not await allow_address(connection, tenant=caller.tenant, channel=channel, address_hash=address_id):
                raise NotFound("there is no such suppressed address")
            subject = ("suppression", f"{channel}:{address_id[:16]}")
            await record(connection, caller, "address.allowed", now=now, subject=subject)
        log.info("address_allowed", channel=channel, by=str(caller.id))
        return Response(status_code=204)

    return router
