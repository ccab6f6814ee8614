"""What was sent, over REST: the list, changes, recalls, and why somebody did or did not get it."""

from datetime import datetime
from typing import Annotated, Any, Protocol
from uuid import UUID

import structlog
from fastapi import APIRouter, Depends, Query
from pydantic import AwareDatetime, BaseModel, Field, model_validator

from notification_service.identity.access import Caller
from notification_service.notifications.stages import Stage
from notification_service.rest.callers import Callers
from notification_service.rest.json_route import JsonRoute
from notification_service.rest.pages import DEFAULT_LIMIT, CursorParameter, Cursors, LimitParameter
from shared_contracts.json_types import Moment, Whole
from shared_contracts.requests import Action, Channel, Priority
from shared_contracts.text import JsonObject, Line, Text

log = structlog.get_logger(__name__)


class SentOut(BaseModel):
    """One notification as its sender sees it."""

    id: UUID
    status: Stage
    kind: str
    event_type: str
    title: str | None
    body: str | None
    data: dict[str, Any]
    priority: Priority
    category: str | None
    tags: list[str]
    channels: list[Channel] | None
    recipients: dict[str, Any]
    recipients_count: int | None
    sender: dict[str, Any] | None
    version: int = Field(description="Rises with every change and with the recall.")
    created_at: AwareDatetime
    deliver_at: AwareDatetime | None
    expires_at: AwareDatetime | None
    updated_at: AwareDatetime | None
    recalled_at: AwareDatetime | None


class HistoryOut(BaseModel):
    """A page, the newest first."""

    items: list[SentOut]
    next_cursor: str | None


class HistoryQuery(BaseModel):
    """Which notifications."""

    event_type: Annotated[str, Field(max_length=100)] | None = None
    status: Stage | None = None
    channel: Channel | None = None
    user_id: UUID | None = None
    since: Moment | None = Field(default=None, alias="from")
    until: Moment | None = Field(default=None, alias="to")
    text: Annotated[Text, Field(max_length=200)] | None = Field(default=None, alias="q")
    limit: LimitParameter = DEFAULT_LIMIT
    cursor: CursorParameter = None


class ChangeIn(BaseModel):
    """What recipients see from now on; what is left out stays."""

    title: Annotated[Line, Field(min_length=1, max_length=500)] | None = None
    body: Text | None = None
    data: JsonObject | None = None
    actions: Annotated[list[Action], Field(max_length=10)] | None = None
    priority: Priority | None = None
    category: Annotated[Line, Field(min_length=1, max_length=64)] | None = None
    tags: Annotated[list[Annotated[Line, Field(min_length=1, max_length=64)]], Field(max_length=20)] | None = None
    version: Annotated[Whole, Field(ge=1)] | None = Field(
        default=None, description="The version the change was made for; another one now is a conflict (409)."
    )

    @model_validator(mode="after")
    def _check_something(self) -> "ChangeIn":
        if not self.model_fields_set - {"version"}:
            raise ValueError("at least one field must be given")
        return self


class ChangeOut(BaseModel):
    """What became of it: how many inboxes were changed, and deliveries by what could be done about them."""

    id: UUID
    status: Stage
    version: int
    items: int = Field(description="Inbox items that were changed or taken away.")
    cancelled: int = Field(description="Deliveries that had not been sent and now are not.")
    not_recallable: int = Field(description="Deliveries that were sent and cannot be taken back from here.")


class TraceChannelOut(BaseModel):
    """One channel for one user."""

    channel: str
    outcome: str
    reason: str | None
    rules: list[dict[str, Any]]
    due_at: str | None = None
    attempts: list[dict[str, Any]]


class TraceOut(BaseModel):
    """Why a user did or did not get a notification."""

    notification_id: UUID
    user_id: UUID
    outcome: str
    reason: str | None = None
    channels: list[TraceChannelOut]


class Sent(Protocol):
    """What was sent; the entrypoints fill this in, because it spans the stages. All raise `NotFound` for others'."""

    async def list_history(
        self, caller: Caller, query: HistoryQuery, *, before: tuple[datetime, UUID] | None
    ) -> list[SentOut]:
        """A page and one more."""

    async def change(self, caller: Caller, notification_id: UUID, given: ChangeIn) -> ChangeOut:
        """Change what recipients see."""

    async def recall(self, caller: Caller, notification_id: UUID) -> ChangeOut:
        """Take it back."""

    async def trace(self, caller: Caller, notification_id: UUID, user_id: UUID) -> TraceOut:
        """Why a user did or did not get it."""


def make_sent_router(sent: Sent, callers: Callers, cursors: Cursors) -> APIRouter:
    """`/notifications/history`, `/notifications/{id}` and below."""
    router = APIRouter(prefix="/api/v1/notifications", tags=["notifications"], route_class=JsonRoute)
    Anyone = Annotated[Caller, Depends(callers.needs())]  # noqa: N806 - a type

    @router.get("/history", summary="What was sent")
    async def list_history(caller: Anyone, query: Annotated[HistoryQuery, Query()]) -> HistoryOut:
        """The caller's own, with `deliveries:read` everybody's in the tenant; the newest first."""
        scope = f"history:{caller.id}"
        values = cursors.read(scope, query.cursor)
        before = (datetime.fromisoformat(values[0]), UUID(values[1])) if values else None
        found = await sent.list_history(caller, query, before=before)
        page = found[: query.limit]
        following = None
        if len(found) > query.limit:
            following = cursors.write(scope, [page[-1].created_at.isoformat(), str(page[-1].id)])
        return HistoryOut(items=page, next_cursor=following)

    @router.patch("/{notification_id}", summary="Change what was sent")
    async def change(notification_id: UUID, given: ChangeIn, caller: Anyone) -> ChangeOut:
        """On every device and on every channel that has not sent it yet. For its sender, or an administrator."""
        done = await sent.change(caller, notification_id, given)
        log.info("notification_changed", notification_id=str(notification_id), version=done.version)
        return done

    @router.post("/{notification_id}/recall", summary="Take back what was sent")
    async def recall(notification_id: UUID, caller: Anyone) -> ChangeOut:
        """From every inbox, and from every channel that has not sent it yet. For its sender, or an administrator."""
        done = await sent.recall(caller, notification_id)
        log.info("notification_recalled", notification_id=str(notification_id), version=done.version)
        return done

    @router.get("/{notification_id}/trace", summary="Why, or why not")
    async def trace(notification_id: UUID, caller: Anyone, user_id: UUID) -> TraceOut:
        """Every rule that was read, its value, whose it is, and every attempt. For its sender, the user, or staff."""
        return await sent.trace(caller, notification_id, user_id)

    return router
