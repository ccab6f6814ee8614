"""Dead letters over REST: look, replay, discard. Only with the right for it."""

import base64
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Protocol, Self
from uuid import UUID

import orjson
import structlog
from fastapi import APIRouter, Depends, Query, Response
from pydantic import AwareDatetime, BaseModel, Field, model_validator
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.broker.publisher import Outcome, Outgoing, Publisher
from notification_service.clock import Clock
from notification_service.db.base import AnyRow
from notification_service.db.engine import Database
from notification_service.dead_letters.repository import (
    LetterFilter,
    claim_for_replay,
    delete_dead_letter,
    find_dead_letter,
    find_replayable,
    list_dead_letters,
    release_replay,
)
from notification_service.errors import Conflict, NotFound, Unavailable
from notification_service.identity.access import Caller
from notification_service.identity.audit import record, record_all
from notification_service.rest.callers import Callers
from notification_service.rest.json_route import JsonRoute
from notification_service.rest.pages import DEFAULT_LIMIT, CursorParameter, Cursors, LimitParameter
from shared_contracts import topology
from shared_contracts.error_codes import Reason
from shared_contracts.ids import new_id
from shared_contracts.json_types import FlagParameter, Moment, Whole
from shared_contracts.requests import Channel
from shared_contracts.scopes import Scope
from shared_contracts.text import Line
from shared_contracts.topology import CHANNEL_QUEUE_PREFIX

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


class AttemptOut(BaseModel):
    """One try of a delivery."""

    number: int
    route: str
    started_at: AwareDatetime
    latency_ms: int
    outcome: str
    reason: str | None
    detail: str | None
    provider_message_id: str | None


class DeadLetterDetailOut(DeadLetterOut):
    """One message given up, with everything that is known of it."""

    notification: dict[str, Any] | None = Field(
        description="For a delivery: what was to be said, as it was asked for; null when that is gone."
    )
    history: list[AttemptOut] = Field(description="For a delivery: every attempt, the oldest first.")


class LetterFilterIn(BaseModel):
    """Which dead letters."""

    reason: Reason | None = None
    channel: Channel | None = Field(None, description="Deliveries over it that were given up.")
    source: Annotated[Line, Field(max_length=255)] | None = Field(None, description="The sender's name.")
    message_id: Annotated[Line, Field(max_length=255)] | None = None
    replayed: FlagParameter | None = Field(None, description="False: those that still wait for somebody.")
    from_: Moment | None = Field(None, alias="from", description="Created at this time or later.")
    to: Moment | None = Field(None, description="Created before.")

    def of(self, tenant: str) -> LetterFilter:
        """For one tenant."""
        return LetterFilter(
            tenant,
            reason=self.reason,
            channel=self.channel,
            source=self.source,
            message_id=self.message_id,
            is_replayed=self.replayed,
            since=self.from_,
            until=self.to,
        )


class DeadLetterQuery(LetterFilterIn):
    """A page of them."""

    limit: LimitParameter = DEFAULT_LIMIT
    cursor: CursorParameter = None


class ReplayIn(BaseModel):
    """Which to replay: by their ids, or the oldest that a filter finds."""

    ids: Annotated[list[UUID], Field(min_length=1, max_length=MAX_REPLAY)] | None = None
    filter: LetterFilterIn | None = Field(None, description="In place of `ids`; `{}` finds all.")
    limit: Whole = Field(MAX_REPLAY, ge=1, le=MAX_REPLAY, description="Of a filter: at most so many at once.")

    @model_validator(mode="after")
    def _check_one_of_both(self) -> Self:
        if (self.ids is None) == (self.filter is None):
            raise ValueError("either ids or a filter is needed")
        return self


class ReplayOut(BaseModel):
    """How many were replayed; the others were replayed before, are truncated, or do not exist."""

    replayed: int


class RequeueDeliveries(Protocol):
    """Begins given-up deliveries again; the entrypoints hand it over, because domains do not know the stages."""

    async def __call__(
        self, connection: AsyncConnection, keys: Sequence[tuple[UUID, UUID]], now: datetime, /
    ) -> set[UUID]:
        """Begin these (user, delivery) again; answers the ids of those that could be."""


class Explain(Protocol):
    """Tells of a delivery that was given up; handed over as `RequeueDeliveries` is."""

    async def __call__(
        self, connection: AsyncConnection, key: tuple[UUID, UUID], /
    ) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
        """What was to be said, and every attempt, of this (user, delivery)."""


def make_dead_letter_router(
    database: Database,
    publisher: Publisher,
    clock: Clock,
    callers: Callers,
    cursors: Cursors,
    *,
    requeue: RequeueDeliveries,
    explain: Explain,
) -> APIRouter:
    """`/dead-letters` and everything below it."""
    router = APIRouter(prefix="/api/v1/dead-letters", tags=["dead letters"], route_class=JsonRoute)
    Keeper = Annotated[Caller, Depends(callers.needs(Scope.DEAD_LETTERS))]  # noqa: N806 - a type

    replay = _Replay(database, publisher, clock, requeue)

    @router.get("", summary="List dead letters")
    async def list_letters(caller: Keeper, query: Annotated[DeadLetterQuery, Query()]) -> DeadLettersOut:
        """The newest first, of the caller's tenant and of messages that could not be read far enough to have one."""
        wanted = query.model_dump(mode="json", exclude={"limit", "cursor"})
        scope = f"dead-letters:{caller.tenant}:{wanted}"
        values = cursors.read(scope, query.cursor)
        async with database.read() as connection:
            rows = await list_dead_letters(
                connection,
                query.of(caller.tenant),
                limit=query.limit,
                before=(datetime.fromisoformat(values[0]), UUID(values[1])) if values else None,
            )
        page = rows[: query.limit]
        more = len(rows) > query.limit
        last = [page[-1].created_at.isoformat(), str(page[-1].id)] if more else None
        return DeadLettersOut(
            items=[_describe(row) for row in page], next_cursor=cursors.write(scope, last) if last else None
        )

    @router.get("/{letter_id}", summary="One dead letter")
    async def get_letter(letter_id: UUID, caller: Keeper) -> DeadLetterDetailOut:
        """With its payload; for a delivery with what was to be said, and every attempt."""
        row = await _find(database, caller, letter_id)
        key = _delivery_of(row)
        notification: dict[str, Any] | None = None
        history: list[dict[str, Any]] = []
        if key is not None:
            async with database.read() as connection:
                notification, history = await explain(connection, key)
        return DeadLetterDetailOut.model_validate(
            {**_describe(row).model_dump(), "notification": notification, "history": history}
        )

    @router.post("/replay", summary="Replay several")
    async def replay_many(wanted: ReplayIn, caller: Keeper) -> ReplayOut:
        """Send them in again, each once, at most 500 in a call: whoever has more sees first how these end."""
        ids = wanted.ids
        if wanted.filter is not None:
            async with database.read() as connection:
                ids = await find_replayable(connection, wanted.filter.of(caller.tenant), limit=wanted.limit)
        return ReplayOut(replayed=await replay(caller, ids) if ids else 0)

    @router.post("/{letter_id}/replay", summary="Replay one")
    async def replay_one(letter_id: UUID, caller: Keeper) -> ReplayOut:
        """Send it in again where it came from. It works once; what was truncated cannot be replayed (409)."""
        await _find(database, caller, letter_id)
        if not await replay(caller, [letter_id]):
            raise Conflict("it was replayed before, cannot be any more, or only a part of it was kept")
        return ReplayOut(replayed=1)

    @router.delete("/{letter_id}", status_code=204, summary="Discard one")
    async def discard(letter_id: UUID, caller: Keeper) -> Response:
        """It is gone for good."""
        await _find(database, caller, letter_id)
        async with database.write() as connection:
            await delete_dead_letter(connection, letter_id)
            subject = ("dead_letter", str(letter_id))
            await record(connection, caller, "dead_letter.discarded", now=clock.now(), subject=subject)
        log.info("dead_letter_discarded", dead_letter_id=str(letter_id), user_id=str(caller.id))
        return Response(status_code=204)

    return router


async def _find(database: Database, caller: Caller, letter_id: UUID) -> AnyRow:
    async with database.read() as connection:
        row = await find_dead_letter(connection, letter_id)
    if row is None or row.tenant not in (None, caller.tenant):
        raise NotFound("there is no such dead letter")
    return row


class _Replay:
    """Sends dead letters in again: messages where they came from, deliveries to their work queues."""

    def __init__(self, database: Database, publisher: Publisher, clock: Clock, requeue: RequeueDeliveries) -> None:
        self._database = database
        self._publisher = publisher
        self._clock = clock
        self._requeue = requeue

    async def __call__(self, caller: Caller, ids: Sequence[UUID]) -> int:
        """Mark first, publish then: two admins at once cannot replay the same one twice. Answers how many."""
        now = self._clock.now()
        async with self._database.write() as connection:
            rows = await claim_for_replay(connection, ids, tenant=caller.tenant, now=now)
            keys = {row.id: key for row in rows if (key := _delivery_of(row)) is not None}
            begun = await self._requeue(connection, list(keys.values()), now) if keys else set()
            refused = [letter_id for letter_id, (_, delivery_id) in keys.items() if delivery_id not in begun]
            await release_replay(connection, refused)
            done = [row.id for row in rows if row.id not in refused]
            subjects = [("dead_letter", str(each)) for each in done]
            await record_all(connection, caller, "dead_letter.replayed", subjects=subjects, now=now)
        messages = [row for row in rows if row.id not in keys]
        outcomes = await self._publisher.publish_all([_make_message(row) for row in messages]) if messages else []
        failed = [row.id for row, outcome in zip(messages, outcomes, strict=True) if outcome is not Outcome.OK]
        if failed:
            async with self._database.write() as connection:
                await release_replay(connection, failed)
        for letter_id in done:
            log.info("dead_letter_replayed", dead_letter_id=str(letter_id), user_id=str(caller.id))
        if failed and len(failed) == len(rows):
            raise Unavailable("RabbitMQ did not take the message")
        return len(done) - len(failed)


def _delivery_of(row: AnyRow) -> tuple[UUID, UUID] | None:
    """The (user, delivery) a dead letter is about; None when it is about a message."""
    if row.exchange or not (row.routing_key or "").startswith(CHANNEL_QUEUE_PREFIX):
        return None
    try:
        payload = orjson.loads(row.payload)
        return UUID(payload["user_id"]), UUID(payload["delivery_id"])
    except (ValueError, KeyError, TypeError):
        return None


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
