"""All tables, imported for their effect on the metadata: for migrations and for the test that compares both."""

from __future__ import annotations

from notification_service.db.base import metadata
from notification_service.dead_letters.models import dead_letters
from notification_service.event_types.models import event_types
from notification_service.identity.models import groups, memberships, progress, users
from notification_service.intake.models import idempotency_keys
from notification_service.mailbox.models import (
    broadcast_states,
    broadcast_streams,
    broadcasts,
    device_cursors,
    items,
    store,
    stream_marks,
    streams,
)
from notification_service.notifications.models import notifications

__all__ = [
    "broadcast_states",
    "broadcast_streams",
    "broadcasts",
    "dead_letters",
    "device_cursors",
    "event_types",
    "groups",
    "idempotency_keys",
    "items",
    "memberships",
    "metadata",
    "notifications",
    "progress",
    "store",
    "stream_marks",
    "streams",
    "users",
]
