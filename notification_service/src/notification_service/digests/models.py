"""Tables of digests, schedules and escalations."""

from __future__ import annotations

from sqlalchemy import Column, Index, Integer, String, Table, Uuid, text

from notification_service.db.base import Json, UtcDateTime, metadata

digests = Table(
    "digests",
    metadata,
    # Also the id of the notification that tells of it, so that closing twice can only make one.
    Column("id", Uuid, primary_key=True),
    Column("tenant", String(63), nullable=False),
    Column("user_id", Uuid, nullable=False),
    Column("channel", String(16), nullable=False),
    # `quiet_hours`, `preference`, `weekly`, or `type:<code>`.
    Column("key", String(110), nullable=False),
    Column("due_at", UtcDateTime, nullable=False),
    Column("opened_at", UtcDateTime, nullable=False),
    Column("closed_at", UtcDateTime),
    # What it told: items that were neither read nor recalled by then. 0: nothing was sent.
    Column("told_count", Integer),
    # One open digest per user, channel and key: whoever adds meets this row, whoever closes holds it.
    Index(
        "uq_digests_open",
        "user_id",
        "channel",
        "key",
        unique=True,
        postgresql_where=text("closed_at IS NULL"),
        sqlite_where=text("closed_at IS NULL"),
    ),
    Index(
        "ix_digests_due_at",
        "due_at",
        postgresql_where=text("closed_at IS NULL"),
        sqlite_where=text("closed_at IS NULL"),
    ),
    Index("ix_digests_user_id", "user_id"),
)

digest_items = Table(
    "digest_items",
    metadata,
    Column("digest_id", Uuid, primary_key=True),
    Column("notification_id", Uuid, primary_key=True),
    Column("added_at", UtcDateTime, nullable=False),
    Index("ix_digest_items_notification_id", "notification_id"),
)

schedules = Table(
    "schedules",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("tenant", String(63), nullable=False),
    Column("sender_id", Uuid),
    Column("sender_name", String(255)),
    Column("request", Json, nullable=False),
    # None: once.
    Column("recurrence", Json),
    # None: it is over.
    Column("next_at", UtcDateTime),
    Column("fired_count", Integer, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Index("ix_schedules_next_at", "next_at"),
    Index("ix_schedules_tenant_id", "tenant", "id"),
)

escalations = Table(
    "escalations",
    metadata,
    Column("notification_id", Uuid, primary_key=True),
    Column("user_id", Uuid, primary_key=True),
    # The next step of the plan that is tried, unless a device has acknowledged by `due_at`.
    Column("step", Integer, nullable=False),
    Column("due_at", UtcDateTime, nullable=False),
    Index("ix_escalations_due_at", "due_at"),
    Index("ix_escalations_user_id", "user_id"),
)
