"""The table of dead letters; the queue `notifications.dead` carries the same for other programs to watch."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Index, Integer, LargeBinary, String, Table, Text, Uuid

from notification_service.db.base import UtcDateTime, metadata

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("tenant", String(63)),
    Column("reason", String(40), nullable=False),
    Column("detail", Text, nullable=False),
    Column("source", String(255)),
    Column("exchange", String(255)),
    Column("routing_key", String(255)),
    Column("message_id", String(255)),
    Column("payload", LargeBinary, nullable=False),
    # A payload beyond the limit is kept in part, for looking at; it cannot be replayed.
    Column("is_truncated", Boolean, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("replayed_at", UtcDateTime),
    Index("ix_dead_letters_created_at", "created_at"),
    Index("ix_dead_letters_reason_created_at", "reason", "created_at"),
)
