"""Reading what arrived: a request, or the reason why it is none. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from pydantic import ValidationError

from notification_service.notifications.entity import Sender
from shared_contracts import headers, topology
from shared_contracts.error_codes import Reason
from shared_contracts.problems import FieldError
from shared_contracts.requests import (
    DATA_TOO_LONG,
    MAX_REQUEST_BYTES,
    Kind,
    NotificationRequest,
    Recipients,
    describe_errors,
    with_everyone,
)

_MAX_SOURCE_LENGTH: Final = 255
# What the REST API hands over carries the event type's defaults too, and was measured without them.
_OWN_SLACK_BYTES: Final = 8 * 1024


@dataclass(frozen=True, slots=True)
class CheckedRequest:
    """A request that fits the contract; who it is for is looked up later.

    Attributes:
        accepted_at: When the REST API accepted it; None: it comes straight from a publisher.
    """

    id: UUID
    request: NotificationRequest
    kind: Kind
    sender: Sender
    accepted_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """A message that is no request, and why. It becomes a dead letter."""

    reason: Reason
    detail: str


def check_message(
    *,
    body: bytes,
    exchange: str,
    routing_key: str,
    message_id: str | None,
    app_id: str | None,
    message_headers: Mapping[str, Any],
) -> CheckedRequest | Refused:
    """Read one AMQP message of the intake (contract section 4.2)."""
    if message_id is None or (notification_id := _parse_uuid(message_id)) is None:
        return Refused(Reason.MISSING_MESSAGE_ID, "the property message_id must be a UUID: it is the idempotency key")
    limit = MAX_REQUEST_BYTES + (_OWN_SLACK_BYTES if headers.SENDER_ID in message_headers else 0)
    if len(body) > limit:
        return Refused(Reason.TOO_LARGE, f"the body has {len(body)} bytes, at most {MAX_REQUEST_BYTES} are allowed")
    try:
        request = NotificationRequest.model_validate_json(body)
    except ValidationError as error:
        return _refuse(error)
    is_broadcast = exchange == topology.NOTIFICATIONS_FANOUT.name
    if is_broadcast:
        request = with_everyone(request)
    if problem := find_missing_recipients(request.recipients, None if is_broadcast else routing_key):
        return Refused(Reason.INVALID_SCHEMA, f"{problem.field}: {problem.message}")
    kind = request.kind_for(None if is_broadcast else routing_key)
    sender = _read_sender(app_id, message_headers)
    return CheckedRequest(notification_id, request, kind, sender, _read_time(message_headers.get(headers.ACCEPTED_AT)))


def find_missing_recipients(recipients: Recipients, routing_key: str | None) -> FieldError | None:
    """What the recipients lack for this way in; None when nothing."""
    if routing_key == topology.KEY_PRIVATE and not recipients.users:
        return FieldError(field="recipients.users", message="the routing key 'private' needs at least one user")
    if routing_key == topology.KEY_GROUP and not (recipients.groups or recipients.roles):
        return FieldError(field="recipients.groups", message="the routing key 'group' needs at least one group or role")
    if recipients.is_empty:
        return FieldError(field="recipients", message="at least one user, group or role must be named, or all be true")
    return None


def _refuse(error: ValidationError) -> Refused:
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    if problems[0]["type"] == "json_invalid":
        return Refused(Reason.INVALID_JSON, "the body is not valid JSON")
    described = "; ".join(f"{field or 'body'}: {message}" for field, message in describe_errors(problems)[:20])
    is_too_long = all(each["type"] == DATA_TOO_LONG for each in problems)
    return Refused(Reason.TOO_LARGE if is_too_long else Reason.INVALID_SCHEMA, described)


def _parse_uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _read_time(value: object) -> datetime | None:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return moment if moment is not None and moment.tzinfo is not None else None


def _read_sender(app_id: str | None, message_headers: Mapping[str, Any]) -> Sender:
    sender_id, name = message_headers.get(headers.SENDER_ID), message_headers.get(headers.SENDER_NAME)
    if isinstance(sender_id, str) and (known := _parse_uuid(sender_id)) is not None:
        return Sender(known, name[:_MAX_SOURCE_LENGTH] if isinstance(name, str) else None)
    return Sender(None, app_id[:_MAX_SOURCE_LENGTH].replace("\x00", "\ufffd") if app_id else None)
