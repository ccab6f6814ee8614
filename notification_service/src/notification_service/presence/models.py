"""The table of when users were last seen."""

from __future__ import annotations

from sqlalchemy import Column, Table, Uuid

from notification_service.db.base import UtcDateTime, metadata

last_seen = Table(
    "presence_last_seen",
    metadata,
    Column("user_id", Uuid, primary_key=True),
    Column("seen_at", UtcDateTime, nullable=False),
)
