"""Bodies of the inbox's REST calls."""

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, Field, model_validator

from notification_service.rest.pages import DEFAULT_LIMIT, CursorParameter, LimitParameter
from shared_contracts.json_types import Flag, FlagParameter, Moment
from shared_contracts.requests import Kind, Priority
from shared_contracts.ws.frames import MAX_IDS

StateName = Literal["unread", "read", "seen", "unseen", "archived", "snoozed"]


class ItemStateOut(BaseModel):
    """When the user did what."""

    read_at: AwareDatetime | None
    seen_at: AwareDatetime | None
    archived_at: AwareDatetime | None


class ItemOut(BaseModel):
    """One item of the inbox."""

    id: UUID
    seq: int | None = Field(description="Its number in the user's stream; null for broadcasts.")
    kind: Kind
    event_type: str
    title: str | None
    body: str | None
    data: dict[str, Any]
    actions: list[dict[str, Any]]
    priority: Priority
    category: str | None
    tags: list[str]
    group_id: UUID | None
    sender: dict[str, Any] | None
    created_at: AwareDatetime
    expires_at: AwareDatetime | None
    state: ItemStateOut
    read_at: AwareDatetime | None
    seen_at: AwareDatetime | None
    archived_at: AwareDatetime | None
    snoozed_until: AwareDatetime | None
    pinned_at: AwareDatetime | None = None


class InboxOut(BaseModel):
    """A page, the newest first."""

    items: list[ItemOut]
    next_cursor: str | None


class CountsOut(BaseModel):
    """Items neither archived nor removed; `filtered` answers each filter asked for, in order."""

    unread: int
    unseen: int
    total: int
    filtered: list[int] | None = None


class ItemPatch(BaseModel):
    """Changes to one item; what is left out stays."""

    read: Flag | None = None
    seen: Literal[True] | None = None
    archived: Flag | None = None
    snoozed_until: Moment | None = Field(
        default=None, description="Away until then, and back as new; null brings it back now."
    )
    pinned: Flag | None = None

    @model_validator(mode="after")
    def _check_something(self) -> "ItemPatch":
        given = (self.read, self.seen, self.archived, self.pinned)
        if all(each is None for each in given) and "snoozed_until" not in self.model_fields_set:
            raise ValueError("at least one of read, seen, archived, snoozed_until and pinned must be given")
        return self


class FilterIn(BaseModel):
    """Which items; the same as the list's parameters."""

    state: StateName | None = None
    event_type: Annotated[str, Field(max_length=100)] | None = None
    category: Annotated[str, Field(max_length=64)] | None = None
    tag: Annotated[str, Field(max_length=64)] | None = None
    priority: Priority | None = None
    group_id: UUID | None = None
    pinned: FlagParameter | None = None
    since: Moment | None = Field(default=None, alias="from")
    until: Moment | None = Field(default=None, alias="to")
    text: Annotated[str, Field(max_length=200)] | None = Field(default=None, alias="q")


class ListQuery(FilterIn):
    """Parameters of the list."""

    limit: LimitParameter = DEFAULT_LIMIT
    cursor: CursorParameter = None


class InboxBatchIn(BaseModel):
    """One action on many items: exactly one of `ids` and `filter`."""

    action: Literal["read", "unread", "seen", "archive", "unarchive", "delete", "snooze", "unsnooze", "pin", "unpin"]
    snoozed_until: Moment | None = Field(default=None, description="For `snooze`: when the items come back.")
    ids: Annotated[list[UUID], Field(min_length=1, max_length=MAX_IDS)] | None = None
    filter: FilterIn | None = None

    @model_validator(mode="after")
    def _check_one(self) -> "InboxBatchIn":
        if (self.ids is None) == (self.filter is None):
            raise ValueError("exactly one of ids and filter must be given")
        if (self.action == "snooze") != (self.snoozed_until is not None):
            raise ValueError("snoozed_until belongs to the action snooze, and must be given there")
        return self


class InboxBatchOut(BaseModel):
    """What changed, and the counts after it."""

    changed: int
    counts: CountsOut


class SyncOut(BaseModel):
    """What changed since a position: the same frames the socket's resume sends."""

    items: list[dict[str, Any]]
    position: str
    has_more: bool
    resume: Literal["recovered", "reset"]
    counts: CountsOut


class AckIn(BaseModel):
    """Everything up to `position` has been received by this device."""

    position: Annotated[str, Field(max_length=200)]
    device_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._:@\-]{1,64}$")] | None = None
