"""The table of event types. Rows of tenant `*` are built in; a tenant's own row with the same code replaces them."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Integer, String, Table, Text

from notification_service.db.base import Json, UtcDateTime, metadata

EVERY_TENANT = "*"

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
