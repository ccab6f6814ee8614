"""The table of accepted notifications."""

from __future__ import annotations

from sqlalchemy import Column, Index, Integer, String, Table, Text, Uuid, text

from notification_service.db.base import Json, UtcDateTime, metadata

notifications = Table(
    "notifications",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("tenant", String(63), nullable=False),
    # Who asked: the authenticated user or service account, or only the name a publisher gave itself over AMQP.
    Column("sender_id", Uuid),
    Column("sender_name", String(255)),
    Column("request_hash", String(64), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("event_type", String(100), nullable=False),
    Column("title", Text),
    Column("body", Text),
    Column("data", Json, nullable=False),
    Column("actions", Json, nullable=False),
    Column("priority", String(16), nullable=False),
    Column("category", String(64)),
    Column("tags", Json, nullable=False),
    Column("collapse_key", String(128)),
    Column("channels", Json),
    Column("recipients", Json, nullable=False),
    Column("group_id", Uuid),
    Column("locale", String(35)),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime),
    Column("deliver_at", UtcDateTime),
    Column("routed_at", UtcDateTime),
    Column("dispatched_at", UtcDateTime),
    # When the relay looks at this row, unless it is dispatched by then.
    Column("relay_after", UtcDateTime, nullable=False),
    Column("recipients_count", Integer),
    Column("problems", Json),
    Index("ix_notifications_tenant_created_at", "tenant", "created_at"),
    Index("ix_notifications_sender_id_created_at", "sender_id", "created_at"),
    Index(
        "ix_notifications_relay_after",
        "relay_after",
        postgresql_where=text("dispatched_at IS NULL"),
        sqlite_where=text("dispatched_at IS NULL"),
    ),
)
