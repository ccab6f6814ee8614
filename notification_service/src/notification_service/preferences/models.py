"""Tables of preferences. A user without a row has the defaults, so most users have none."""

from __future__ import annotations

from sqlalchemy import Column, Index, Integer, String, Table, Uuid

from notification_service.db.base import Json, UtcDateTime, metadata

user_preferences = Table(
    "user_preferences",
    metadata,
    Column("user_id", Uuid, primary_key=True),
    Column("tenant", String(63), nullable=False),
    Column("document", Json, nullable=False),
    Column("version", Integer, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Index("ix_user_preferences_tenant", "tenant"),
)

preference_defaults = Table(
    "preference_defaults",
    metadata,
    Column("tenant", String(63), primary_key=True),
    # Empty: of the whole tenant.
    Column("role", String(32), primary_key=True),
    Column("document", Json, nullable=False),
    Column("version", Integer, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
)
