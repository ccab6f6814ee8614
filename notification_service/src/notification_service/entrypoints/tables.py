"""All tables, imported for their effect on the metadata: for migrations and for the test that compares both."""

from __future__ import annotations

from notification_service.analytics.models import analytics_hours, analytics_progress
from notification_service.channels.models import channel_breakers, deliveries, delivery_attempts
from notification_service.contacts.models import contact_code_turns, contacts, suppressions
from notification_service.db.base import metadata
from notification_service.dead_letters.models import dead_letters
from notification_service.digests.models import digest_items, digests, escalations, schedules
from notification_service.event_types.models import event_types, tenant_settings, throttle_counters
from notification_service.identity.models import audit_outbox, groups, memberships, progress, users
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
from notification_service.notifications.models import (
    decision_records,
    decision_users,
    fanouts,
    notification_contents,
    notifications,
)
from notification_service.personal_data.models import erasures
from notification_service.preferences.models import preference_defaults, user_preferences
from notification_service.presence.models import last_seen
from notification_service.templates.models import template_versions, templates

__all__ = [
    "analytics_hours",
    "analytics_progress",
    "audit_outbox",
    "broadcast_states",
    "broadcast_streams",
    "broadcasts",
    "channel_breakers",
    "contact_code_turns",
    "contacts",
    "dead_letters",
    "decision_records",
    "decision_users",
    "deliveries",
    "delivery_attempts",
    "device_cursors",
    "digest_items",
    "digests",
    "erasures",
    "escalations",
    "event_types",
    "fanouts",
    "groups",
    "idempotency_keys",
    "items",
    "last_seen",
    "memberships",
    "metadata",
    "notification_contents",
    "notifications",
    "preference_defaults",
    "progress",
    "schedules",
    "store",
    "stream_marks",
    "streams",
    "suppressions",
    "template_versions",
    "templates",
    "tenant_settings",
    "throttle_counters",
    "user_preferences",
    "users",
]
