"""Handing an accepted notification to the intake: the message any backend would send, with who asked in its headers."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import orjson

from notification_service.broker.publisher import Outgoing
from notification_service.notifications.entity import Notification
from shared_contracts import headers, topology
from shared_contracts.requests import Kind


def make_intake_message(notification: Notification, now: datetime) -> Outgoing:
    """The intake message of a notification that was accepted over REST.

    Broadcasts go to `notifications.fanout`, where other services may listen too. The time to live is what is left.
    """
    is_broadcast = notification.kind is Kind.BROADCAST
    sender = notification.sender
    own_headers: dict[str, Any] = {headers.ACCEPTED_AT: notification.created_at.isoformat()}
    if sender.id is not None:
        own_headers[headers.SENDER_ID] = str(sender.id)
    if sender.name is not None:
        own_headers[headers.SENDER_NAME] = sender.name
    return Outgoing(
        exchange=(topology.NOTIFICATIONS_FANOUT if is_broadcast else topology.NOTIFICATIONS_DIRECT).name,
        routing_key="" if is_broadcast else str(notification.kind),
        body=_encode_request(notification, now),
        message_id=str(notification.id),
        headers=own_headers,
        app_id="herald",
        timestamp=notification.created_at,
    )


def _encode_request(notification: Notification, now: datetime) -> bytes:
    expires_at = notification.expires_at
    request: dict[str, Any] = {
        "version": 1,
        "event_type": notification.event_type,
        "recipients": notification.recipients.model_dump(mode="json"),
        "title": notification.title,
        "body": notification.body,
        "data": notification.data,
        "actions": notification.actions,
        "channels": notification.channels,
        "priority": notification.priority,
        "category": notification.category,
        "tags": notification.tags,
        "collapse_key": notification.collapse_key,
        "ttl_seconds": max(1, round((expires_at - now).total_seconds())) if expires_at else None,
        "locale": notification.locale,
        "tenant": notification.tenant,
    }
    return orjson.dumps({key: value for key, value in request.items() if value is not None})
