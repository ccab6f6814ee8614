"""Event types and what a tenant set about them. A tenant's own row replaces the built-in one of tenant `*`."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Index, Integer, String, Table, Text, Uuid

from notification_service.db.base import BigNumber, Json, UtcDateTime, metadata

event_types = Table(
    "event_types",
    metadata,
    Column("tenant", String(63), primary_key=True),
    Column("code", String(100), primary_key=True),
    Column("name", String(200), nullable=False),
    Column("description", Text, nullable=False),
    Column("category", String(64)),
    # None: every channel the recipient has.
    Column("channels", Json),
    Column("default_enabled", Boolean, nullable=False),
    Column("mandatory", Boolean, nullable=False),
    Column("priority", String(16), nullable=False),
    Column("is_active", Boolean, nullable=False),
    Column("data_schema", Json),
    Column("retention_days", Integer),
    Column("throttle", Json),
    Column("digest", Json),
    Column("escalation", Json),
    Column("version", Integer, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
)

tenant_settings = Table(
    "tenant_settings",
    metadata,
    Column("tenant", String(63), primary_key=True),
    # Rises with every change of the tenant's event types, templates, default preferences or settings, in the same
    # transaction: processes compare it with what they remember, so nothing is used after it changed.
    Column("version", BigNumber, nullable=False),
    Column("default_locale", String(35), nullable=False),
    # What becomes of a request whose event type nobody made: `refuse` or `create`.
    Column("unknown_event_types", String(8), nullable=False),
    # Name, colour, logo and footer for layouts; None: plain.
    Column("branding", Json),
    Column("html_layout", Text),
    Column("updated_at", UtcDateTime, nullable=False),
)

throttle_counters = Table(
    "throttle_counters",
    metadata,
    Column("user_id", Uuid, primary_key=True),
    Column("event_type", String(100), primary_key=True),
    Column("window_start", UtcDateTime, primary_key=True),
    Column("count", Integer, nullable=False),
    Index("ix_throttle_counters_window_start", "window_start"),
)
