"""Bodies of the event types' REST calls (contract section 8)."""

from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, Field

from shared_contracts.requests import Channel, Priority
from shared_contracts.text import JsonObject, Line, Text

Name = Annotated[Line, Field(min_length=1, max_length=200)]
Category = Annotated[Line, Field(min_length=1, max_length=64)]


class _Fields(BaseModel):
    description: Annotated[Text, Field(max_length=2000)] = ""
    category: Category | None = None
    channels: Annotated[list[Channel], Field(min_length=1, max_length=len(Channel))] | None = None
    default_enabled: bool = True
    mandatory: bool = False
    priority: Priority = Priority.NORMAL
    is_active: bool = True
    data_schema: JsonObject | None = None
    retention_days: Annotated[int, Field(ge=1, le=3650)] | None = None
    throttle: JsonObject | None = None
    digest: JsonObject | None = None
    escalation: JsonObject | None = None


class EventTypeIn(_Fields):
    """A new event type; only `code` and `name` are needed."""

    code: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.\-]{0,99}$")]
    name: Name


class EventTypePatch(BaseModel):
    """Changes; what is left out stays."""

    name: Name | None = None
    description: Annotated[Text, Field(max_length=2000)] | None = None
    category: Category | None = None
    channels: Annotated[list[Channel], Field(min_length=1, max_length=len(Channel))] | None = None
    default_enabled: bool | None = None
    mandatory: bool | None = None
    priority: Priority | None = None
    is_active: bool | None = None
    data_schema: JsonObject | None = None
    retention_days: Annotated[int, Field(ge=1, le=3650)] | None = None
    throttle: JsonObject | None = None
    digest: JsonObject | None = None
    escalation: JsonObject | None = None


class EventTypeOut(_Fields):
    """An event type."""

    code: str
    name: str
    version: int = Field(description="Rises with every change.")
    built_in: bool = Field(description="Comes with Herald; changing it makes the tenant's own copy.")
    created_at: AwareDatetime
    updated_at: AwareDatetime


class EventTypesOut(BaseModel):
    """A page, by code."""

    items: list[EventTypeOut]
    next_cursor: str | None


NULLABLE: frozenset[str] = frozenset(
    {"category", "channels", "data_schema", "retention_days", "throttle", "digest", "escalation"}
)
"""Fields that a PATCH may set to null; null elsewhere is refused by the type or means nothing."""

Changes = dict[str, Any]
