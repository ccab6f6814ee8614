"""Live events: frames that are shown to whoever is connected now, and never stored (progress, typing). Pure.

They come over `delivery.direct` with the header `x-herald-ephemeral` and an expiration; `docs/gateway.md` says how a
backend publishes them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final
from uuid import UUID

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from notification_service.clock import format_time
from shared_contracts.ids import new_id
from shared_contracts.requests import describe_errors
from shared_contracts.text import JsonObject, Line, Text

MAX_BYTES: Final = 64 * 1024
DEFAULT_TYPE: Final = "live"


class InvalidLiveEvent(Exception):
    """The message is no live event; says why, without its values."""


class _LiveEvent(BaseModel):
    model_config = ConfigDict(extra="ignore")

    event_type: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,99}$")] = DEFAULT_TYPE
    title: Annotated[Line, Field(max_length=500)] | None = None
    body: Text | None = None
    data: JsonObject = Field(default_factory=dict)
    group_id: UUID | None = None
    sender: dict[str, Any] | None = None


def read_live_event(body: bytes, message_id: str | None, now: datetime) -> bytes:
    """The `notification` frame of a live event, ready for every device.

    Args:
        body: JSON with any of `event_type, title, body, data, group_id, sender`.
        message_id: Becomes its `id` when it is a UUID.

    Raises:
        InvalidLiveEvent: Not such JSON, or longer than 64 KiB.
    """
    if len(body) > MAX_BYTES:
        raise InvalidLiveEvent("longer than 64 KiB")
    try:
        event = _LiveEvent.model_validate(from_json(body, allow_inf_nan=False))
    except ValidationError as error:
        described = describe_errors(error.errors(include_url=False, include_input=False, include_context=False))
        raise InvalidLiveEvent("; ".join(f"{field}: {message}" for field, message in described)) from None
    except ValueError:
        raise InvalidLiveEvent("not JSON") from None
    frame: dict[str, Any] = {
        "type": "notification",
        "id": str(_read_id(message_id)),
        "kind": "group" if event.group_id else "event",
        "event_type": event.event_type,
        "title": event.title,
        "body": event.body,
        "data": event.data,
        "actions": [],
        "priority": "normal",
        "category": None,
        "tags": [],
        "created_at": format_time(now),
        "state": {"read_at": None, "seen_at": None, "archived_at": None},
        "redelivered": False,
        "live": True,
    }
    if event.group_id:
        frame["group_id"] = str(event.group_id)
    if event.sender:
        frame["sender"] = event.sender
    return orjson.dumps(frame)


def _read_id(message_id: str | None) -> UUID:
    try:
        return UUID(message_id or "")
    except ValueError:
        return new_id()
