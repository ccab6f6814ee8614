"""The tables of deliveries over outgoing channels, and of the attempts made. In-app deliveries are the mailbox's."""

from __future__ import annotations

from sqlalchemy import Column, Index, Integer, String, Table, Text, Uuid, text

from notification_service.db.base import Json, UtcDateTime, metadata

deliveries = Table(
    "deliveries",
    metadata,
    # The user first, as in every table that grows with users: it can be partitioned by it.
    Column("user_id", Uuid, primary_key=True),
    # Made from notification, user, channel and contact: the same delivery has the same id, however often it is planned.
    Column("id", Uuid, primary_key=True),
    Column("notification_id", Uuid, nullable=False),
    Column("tenant", String(63), nullable=False),
    Column("channel", String(32), nullable=False),
    # Null: the account's own e-mail address or phone number, or nothing at all when suppressed.
    Column("contact_id", Uuid),
    Column("status", String(16), nullable=False),
    Column("reason", String(40)),
    Column("rules", Json),
    # Channels to try instead, in order, when this one ends without success.
    Column("fallback", Json),
    # Attempts begun, and the last one of which the outcome was written down.
    Column("attempts", Integer, nullable=False),
    Column("settled_attempts", Integer, nullable=False),
    # Attempts before the last replay, and how often it was replayed.
    Column("earlier_attempts", Integer, nullable=False, server_default="0"),
    Column("replays", Integer, nullable=False, server_default="0"),
    Column("created_at", UtcDateTime, nullable=False),
    Column("not_before", UtcDateTime),
    # When the scheduler publishes this delivery (again), unless it has ended by then.
    Column("next_attempt_at", UtcDateTime),
    Column("last_attempt_at", UtcDateTime),
    Column("sent_at", UtcDateTime),
    Column("delivered_at", UtcDateTime),
    Column("provider_message_id", String(255)),
    Column("error", Text),
    # `withdraw` or `edit`: to be done about a message that was sent; when next, and how often it was tried.
    Column("follow_up", String(8)),
    Column("follow_up_at", UtcDateTime),
    Column("follow_up_attempts", Integer, nullable=False, server_default="0"),
    # Whose share of the channel's rate limit it waits for (tenant and sender); null unless it does.
    Column("share", String(200)),
    # Whose (tenant and sender), while it waits for room in its channel's queue.
    Column("held_share", String(200)),
    Index("ix_deliveries_notification_id", "notification_id", "user_id"),
    Index("ix_deliveries_tenant_created_at", "tenant", "created_at", "id"),
    Index("ix_deliveries_provider_message_id", "channel", "provider_message_id"),
    Index(
        "ix_deliveries_next_attempt_at",
        "next_attempt_at",
        postgresql_where=text("next_attempt_at IS NOT NULL"),
        sqlite_where=text("next_attempt_at IS NOT NULL"),
    ),
    Index(
        "ix_deliveries_follow_up_at",
        "follow_up_at",
        postgresql_where=text("follow_up_at IS NOT NULL"),
        sqlite_where=text("follow_up_at IS NOT NULL"),
    ),
    Index(
        "ix_deliveries_share",
        "channel",
        "share",
        "next_attempt_at",
        postgresql_where=text("share IS NOT NULL"),
        sqlite_where=text("share IS NOT NULL"),
    ),
    Index(
        "ix_deliveries_held_share",
        "channel",
        "tenant",
        "held_share",
        "created_at",
        "id",
        postgresql_where=text("held_share IS NOT NULL"),
        sqlite_where=text("held_share IS NOT NULL"),
    ),
)

channel_breakers = Table(
    "channel_breakers",
    metadata,
    # What each worker process thinks of the routes that failed; it says so again while it lives.
    Column("node_id", String(100), primary_key=True),
    Column("channel", String(32), primary_key=True),
    Column("route", String(255), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("changed_at", UtcDateTime, nullable=False),
    Column("seen_at", UtcDateTime, nullable=False),
)

delivery_attempts = Table(
    "delivery_attempts",
    metadata,
    Column("user_id", Uuid, primary_key=True),
    Column("id", Uuid, primary_key=True),
    Column("delivery_id", Uuid, nullable=False),
    Column("number", Integer, nullable=False),
    # Which provider account or endpoint was asked.
    Column("route", String(255), nullable=False),
    Column("started_at", UtcDateTime, nullable=False),
    Column("latency_ms", Integer, nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("reason", String(40)),
    Column("detail", Text),
    Column("provider_message_id", String(255)),
    Index("ix_delivery_attempts_delivery_id", "delivery_id", "number"),
)
