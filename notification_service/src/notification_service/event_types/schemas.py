"""Bodies of the event types' REST calls (contract section 8)."""

from typing import Annotated, Any, Literal, Self

import orjson
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from notification_service.event_types.entity import make_validator
from shared_contracts.json_types import Flag, Whole
from shared_contracts.requests import Channel, Priority
from shared_contracts.text import JsonObject, Line, Text

Name = Annotated[Line, Field(min_length=1, max_length=200)]
Category = Annotated[Line, Field(min_length=1, max_length=64)]
MAX_SCHEMA_BYTES = 16 * 1024
MAX_WINDOW_S = 31 * 24 * 3600


def _check_schema(schema: dict[str, Any]) -> dict[str, Any]:
    if len(orjson.dumps(schema)) > MAX_SCHEMA_BYTES:
        raise ValueError(f"must be at most {MAX_SCHEMA_BYTES} bytes")
    make_validator(schema)
    return schema


DataSchema = Annotated[JsonObject, AfterValidator(_check_schema)]
Window = Annotated[Whole, Field(ge=1, le=MAX_WINDOW_S)]


class Throttle(BaseModel):
    """At most `limit` notifications of this type per user and window; the rest is suppressed as `throttled`."""

    model_config = ConfigDict(extra="forbid")

    limit: Annotated[Whole, Field(ge=1, le=10_000)]
    window_seconds: Window


class DigestRule(BaseModel):
    """Collect instead of sending one by one: until the next hour, day or week of the user, or for a window."""

    model_config = ConfigDict(extra="forbid")

    interval: Literal["immediate", "hourly", "daily", "weekly"] | None = None
    window_seconds: Window | None = None
    channels: Annotated[list[Channel], Field(min_length=1, max_length=len(Channel))] | None = Field(
        default=None, description="Left out: every channel but in-app."
    )

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        if (self.interval is None) == (self.window_seconds is None):
            raise ValueError("exactly one of interval and window_seconds must be given")
        return self


class EscalationStep(BaseModel):
    """Channels that are tried when no device has acknowledged `after_seconds` after the step before."""

    model_config = ConfigDict(extra="forbid")

    after_seconds: Window
    channels: Annotated[list[Channel], Field(min_length=1, max_length=len(Channel))]


class Escalation(BaseModel):
    """In-app first; then the steps, each only while nobody has acknowledged."""

    model_config = ConfigDict(extra="forbid")

    steps: Annotated[list[EscalationStep], Field(min_length=1, max_length=10)]


def _check_branding(branding: dict[str, Any]) -> dict[str, Any]:
    if len(branding) > 20 or not all(isinstance(value, str) and len(value) <= 2_000 for value in branding.values()):
        raise ValueError("must be at most 20 texts of at most 2,000 characters")
    return branding


class _Fields(BaseModel):
    description: Annotated[Text, Field(max_length=2000)] = ""
    category: Category | None = None
    channels: Annotated[list[Channel], Field(min_length=1, max_length=len(Channel))] | None = None
    default_enabled: Flag = True
    mandatory: Flag = False
    priority: Priority = Priority.NORMAL
    is_active: Flag = True
    data_schema: DataSchema | None = None
    retention_days: Annotated[Whole, Field(ge=1, le=3650)] | None = None
    throttle: Throttle | None = None
    digest: DigestRule | None = None
    escalation: Escalation | None = None


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
    default_enabled: Flag | None = None
    mandatory: Flag | None = None
    priority: Priority | None = None
    is_active: Flag | None = None
    data_schema: DataSchema | None = None
    retention_days: Annotated[Whole, Field(ge=1, le=3650)] | None = None
    throttle: Throttle | None = None
    digest: DigestRule | None = None
    escalation: Escalation | None = None


class SettingsIn(BaseModel):
    """Changes to what counts for all event types of the tenant; what is left out stays."""

    default_locale: Annotated[str, Field(pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$", max_length=35)] | None = None
    unknown_event_types: Literal["refuse", "create"] | None = None
    branding: Annotated[JsonObject, AfterValidator(_check_branding)] | None = None
    html_layout: Annotated[Text, Field(max_length=32 * 1024)] | None = Field(
        default=None, description="Around HTML texts; `data.content` is where they go. Null: Herald's own."
    )


class SettingsOut(BaseModel):
    """What counts for all event types of the tenant."""

    default_locale: str
    unknown_event_types: Literal["refuse", "create"]
    branding: dict[str, Any]
    html_layout: str | None


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
