"""The rolled-up table behind the analytics summary: one row per hour, event type and channel."""

from __future__ import annotations

from sqlalchemy import Column, Integer, String, Table

from notification_service.db.base import Json, UtcDateTime, metadata

analytics_hours = Table(
    "analytics_hours",
    metadata,
    Column("tenant", String(63), primary_key=True),
    Column("hour", UtcDateTime, primary_key=True),
    Column("event_type", String(100), primary_key=True),
    Column("channel", String(16), primary_key=True),
    Column("sent", Integer, nullable=False),
    Column("delivered", Integer, nullable=False),
    Column("acked", Integer, nullable=False),
    Column("read", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("suppressed", Integer, nullable=False),
    # Counts of deliveries by latency class (see `latency.CLASSES_MS`).
    Column("latencies", Json, nullable=False),
)

analytics_progress = Table(
    "analytics_progress",
    metadata,
    # One row: up to when hours are rolled up for good, and who is at it until when.
    Column("name", String(16), primary_key=True),
    Column("rolled_up_to", UtcDateTime, nullable=False),
    Column("held_until", UtcDateTime, nullable=False),
)
