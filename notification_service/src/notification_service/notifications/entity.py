"""The notification as the stages hand it on, and as clients see it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import orjson

from notification_service.clock import format_time
from shared_contracts.requests import DEFAULT_EVENT_TYPE, Channel, Kind, NotificationRequest, Priority, Recipients

RENDERED_TITLE: Final = 1
RENDERED_BODY: Final = 2


@dataclass(frozen=True, slots=True)
class Sender:
    """Who asked: an authenticated user or service account, or the name a publisher gave itself over AMQP."""

    id: UUID | None = None
    name: str | None = None

    @property
    def key(self) -> str:
        """What senders of one tenant are told apart by."""
        return str(self.id or self.name or "")


@dataclass(frozen=True, slots=True)
class Notification:
    """One accepted notification. Recipients and their deliveries are worked out from it."""

    id: UUID
    tenant: str
    kind: Kind
    event_type: str
    title: str | None
    body: str | None
    data: dict[str, Any]
    actions: list[dict[str, Any]]
    priority: Priority
    category: str | None
    tags: list[str]
    collapse_key: str | None
    channels: tuple[Channel, ...] | None
    recipients: Recipients
    locale: str | None
    created_at: datetime
    expires_at: datetime | None
    deliver_at: datetime | None
    sender: Sender
    request_hash: str = field(repr=False)
    version: int = 1
    # Which of its texts this is (`notification_contents`); None: its own.
    variant: str | None = None
    # Which of title and body came from a template: 1, 2, or both.
    rendered: int = 0

    @property
    def group_id(self) -> UUID | None:
        """The group, when exactly one was addressed."""
        groups = self.recipients.groups
        return groups[0] if self.kind is Kind.GROUP and len(groups) == 1 else None

    @property
    def asked_title(self) -> str | None:
        """The title, if the request gave it."""
        return None if self.rendered & RENDERED_TITLE else self.title

    @property
    def asked_body(self) -> str | None:
        """The body, if the request gave it."""
        return None if self.rendered & RENDERED_BODY else self.body

    @property
    def is_broadcast(self) -> bool:
        """Whether it is stored once for everybody."""
        return self.recipients.all

    @property
    def wants_in_app(self) -> bool:
        """Whether it goes into mailboxes."""
        return self.channels is None or Channel.IN_APP in self.channels

    def content(self) -> dict[str, Any]:
        """The fields of a `notification` frame that are the same for every recipient."""
        return describe_content(self, self.sender)


def describe_content(shown: Any, sender: Sender) -> dict[str, Any]:
    """The fields of a `notification` frame that are the same for every recipient.

    Args:
        shown: The entity, or a row of its table with the columns of these fields.
        sender: Who asked.
    """
    return {
        "id": str(shown.id),
        "kind": str(shown.kind),
        "event_type": shown.event_type,
        "title": shown.title,
        "body": shown.body,
        "data": shown.data,
        "actions": shown.actions,
        "priority": str(shown.priority),
        "category": shown.category,
        "tags": shown.tags,
        "group_id": str(shown.group_id) if shown.group_id else None,
        "sender": describe_sender(sender),
        "created_at": format_time(shown.created_at),
        "expires_at": format_time(shown.expires_at) if shown.expires_at else None,
    }


def describe_sender(sender: Sender) -> dict[str, Any] | None:
    """The `sender` field of a frame."""
    if sender.id is None and sender.name is None:
        return None
    return {"id": str(sender.id) if sender.id else None, "name": sender.name}


def make_notification(
    request: NotificationRequest,
    *,
    notification_id: UUID,
    kind: Kind,
    sender: Sender,
    now: datetime,
    defaults: EventTypeDefaults,
) -> Notification:
    """The notification a checked request asks for.

    Args:
        request: Checked against the contract.
        notification_id: The message id, or a new id.
        kind: How it was addressed.
        sender: Who asked.
        now: When it was accepted.
        defaults: What the event type fills in.
    """
    deliver_at = request.deliver_at if request.deliver_at and request.deliver_at > now else None
    ttl = timedelta(seconds=request.ttl_seconds) if request.ttl_seconds else defaults.retention
    return Notification(
        id=notification_id,
        tenant=request.tenant,
        kind=kind,
        event_type=request.event_type or DEFAULT_EVENT_TYPE,
        title=request.title,
        body=request.body,
        data=request.data,
        actions=[action.model_dump(mode="json") for action in request.actions],
        priority=request.priority or defaults.priority,
        category=request.category or defaults.category,
        tags=list(request.tags),
        collapse_key=request.collapse_key,
        channels=request.channels or defaults.channels,
        recipients=request.recipients,
        locale=request.locale,
        created_at=now,
        expires_at=(deliver_at or now) + ttl if ttl else None,
        deliver_at=deliver_at,
        sender=sender,
        request_hash=hash_request(request),
    )


@dataclass(frozen=True, slots=True)
class EventTypeDefaults:
    """What an event type fills in where the request is silent; its templates fill in title and body later."""

    category: str | None = None
    channels: tuple[Channel, ...] | None = None
    priority: Priority = Priority.NORMAL
    retention: timedelta | None = None


def hash_request(request: NotificationRequest) -> str:
    """SHA-256, in hex, of the request as Herald understood it: equal requests, however spelt, are equal."""
    text = orjson.dumps(request.model_dump(mode="json"), option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(text).hexdigest()
