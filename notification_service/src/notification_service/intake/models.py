"""Idempotency keys of REST callers: which notification a key stands for, and with which request."""

from __future__ import annotations

from sqlalchemy import Column, Index, String, Table, Uuid

from notification_service.db.base import UtcDateTime, metadata

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("caller_id", Uuid, primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("request_hash", String(64), nullable=False),
    Column("notification_id", Uuid, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Index("ix_idempotency_keys_created_at", "created_at"),
)
