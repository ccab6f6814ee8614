"""Dead letters over REST: look, replay, discard. Only with the right for it."""

import base64
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import orjson
import structlog
from fastapi import APIRouter, Depends, Query, Response
from pydantic import AwareDatetime, BaseModel, Field

from notification_service.broker.publisher import Outcome, Outgoing, Publisher
from notification_service.clock import Clock
from notification_service.db.base import AnyRow
from notification_service.db.engine import Database
from notification_service.dead_letters.repository import (
    claim_for_replay,
    delete_dead_letter,
    find_dead_letter,
    list_dead_letters,
    release_replay,
)
from notification_service.errors import Conflict, NotFound, Unavailable
from notification_service.identity.access import Caller
from notification_service.rest.callers import Callers
from notification_service.rest.json_route import JsonRoute
from notification_service.rest.pages import DEFAULT_LIMIT, CursorParameter, Cursors, LimitParameter
from shared_contracts import topology
from shared_contracts.error_codes import Reason
from shared_contracts.ids import new_id
from shared_contracts.scopes import Scope

log = structlog.get_logger(__name__)

MAX_REPLAY = 500


class DeadLetterOut(BaseModel):
    """One message given up."""

    id: UUID
    reason: str
    detail: str
    source: str | None
    exchange: str | None
    routing_key: str | None
    message_id: str | None
    payload: Any = Field(description="The message's JSON; its text, or `{'base64': ...}`, when it is none.")
    is_truncated: bool
    attempts: int
    created_at: AwareDatetime
    replayed_at: AwareDatetime | None


class DeadLettersOut(BaseModel):
    """A page, the newest first."""

    items: list[DeadLetterOut]
    next_cursor: str | None


class DeadLetterQuery(BaseModel):
    """Which dead letters."""

    reason: Reason | None = None
    limit: LimitParameter = DEFAULT_LIMIT
    cursor: CursorParameter = None


class ReplayIn(BaseModel):
    """Which to replay."""

    ids: Annotated[list[UUID], Field(min_length=1, max_length=MAX_REPLAY)]


class ReplayOut(BaseModel):
    """How many were replayed; the others were replayed before, are truncated, or do not exist."""

    replayed: int


def make_dead_letter_router(
    database: Database, publisher: Publisher, clock: Clock, callers: Callers, cursors: Cursors
) -> APIRouter:
    """`/dead-letters` and everything below it."""
    router = APIRouter(prefix="/api/v1/dead-letters", tags=["dead letters"], route_class=JsonRoute)
    Keeper = Annotated[Caller, Depends(callers.needs(Scope.DEAD_LETTERS))]  # noqa: N806 - a type

    @router.get("", summary="List dead letters")
    async def list_letters(caller: Keeper, query: Annotated[DeadLetterQuery, Query()]) -> DeadLettersOut:
        """The newest first, of the caller's tenant and of messages that could not be read far enough to have one."""
        scope = f"dead-letters:{caller.tenant}"
        values = cursors.read(scope, query.cursor)
        async with database.read() as connection:
            rows = await list_dead_letters(
                connection,
                limit=query.limit,
                before=(datetime.fromisoformat(values[0]), UUID(values[1])) if values else None,
                reason=query.reason,
                tenant=caller.tenant,
            )
        page = rows[: query.limit]
        more = len(rows) > query.limit
        last = [page[-1].created_at.isoformat(), str(page[-1].id)] if more else None
        return DeadLettersOut(
            items=[_describe(row) for row in page], next_cursor=cursors.write(scope, last) if last else None
        )

    @router.get("/{letter_id}", summary="One dead letter")
    async def get_letter(letter_id: UUID, caller: Keeper) -> DeadLetterOut:
        """With its payload."""
        return _describe(await _find(database, caller, letter_id))

    @router.post("/replay", summary="Replay several")
    async def replay_many(wanted: ReplayIn, caller: Keeper) -> ReplayOut:
        """Send them in again, each once."""
        return ReplayOut(replayed=await _replay(database, publisher, clock, caller, wanted.ids))

    @router.post("/{letter_id}/replay", summary="Replay one")
    async def replay_one(letter_id: UUID, caller: Keeper) -> ReplayOut:
        """Send it in again where it came from. It works once; what was truncated cannot be replayed (409)."""
        await _find(database, caller, letter_id)
        if not await _replay(database, publisher, clock, caller, [letter_id]):
            raise Conflict("it was replayed before, or only a part of it was kept")
        return ReplayOut(replayed=1)

    @router.delete("/{letter_id}", status_code=204, summary="Discard one")
    async def discard(letter_id: UUID, caller: Keeper) -> Response:
        """It is gone for good."""
        await _find(database, caller, letter_id)
        async with database.write() as connection:
            await delete_dead_letter(connection, letter_id)
        log.info("dead_letter_discarded", dead_letter_id=str(letter_id), user_id=str(caller.id))
        return Response(status_code=204)

    return router


async def _find(database: Database, caller: Caller, letter_id: UUID) -> AnyRow:
    async with database.read() as connection:
        row = await find_dead_letter(connection, letter_id)
    if row is None or row.tenant not in (None, caller.tenant):
        raise NotFound("there is no such dead letter")
    return row


async def _replay(database: Database, publisher: Publisher, clock: Clock, caller: Caller, ids: list[UUID]) -> int:
    """Mark first, publish then: two admins at once cannot replay the same one twice."""
    async with database.write() as connection:
        rows = await claim_for_replay(connection, ids, tenant=caller.tenant, now=clock.now())
    outcomes = await publisher.publish_all([_make_message(row) for row in rows])
    failed = [row.id for row, outcome in zip(rows, outcomes, strict=True) if outcome is not Outcome.OK]
    if failed:
        async with database.write() as connection:
            await release_replay(connection, failed)
    for row in rows:
        log.info("dead_letter_replayed", dead_letter_id=str(row.id), user_id=str(caller.id))
    if rows and len(failed) == len(rows):
        raise Unavailable("RabbitMQ did not take the message")
    return len(rows) - len(failed)


def _make_message(row: AnyRow) -> Outgoing:
    # A recipient that did not exist has a notification of that id already: the replay is a new one.
    keep_id = row.message_id if row.reason != Reason.UNKNOWN_RECIPIENT else None
    return Outgoing(
        exchange=row.exchange or topology.NOTIFICATIONS_DIRECT.name,
        routing_key=row.routing_key or "",
        body=row.payload,
        message_id=keep_id or str(new_id()),
        app_id=row.source,
    )


def _describe(row: AnyRow) -> DeadLetterOut:
    return DeadLetterOut(
        id=row.id,
        reason=row.reason,
        detail=row.detail,
        source=row.source,
        exchange=row.exchange,
        routing_key=row.routing_key,
        message_id=row.message_id,
        payload=_describe_payload(row.payload),
        is_truncated=row.is_truncated,
        attempts=row.attempts,
        created_at=row.created_at,
        replayed_at=row.replayed_at,
    )


def _describe_payload(payload: bytes) -> Any:
    try:
        return orjson.loads(payload)
    except orjson.JSONDecodeError:
        pass
    try:
        return payload.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(payload).decode()}
