"""Accepted notifications: what was asked, what recipients see of it where that differs, and what was decided."""

from __future__ import annotations

from sqlalchemy import Column, Index, Integer, String, Table, Text, Uuid, text

from notification_service.db.base import Json, UtcDateTime, Words, metadata

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
    Column("version", Integer, nullable=False, server_default="1"),
    # Which of title and body came from a template: 1, 2, or both. Other channels have templates of their own.
    Column("rendered", Integer, nullable=False, server_default="0"),
    Column("updated_at", UtcDateTime),
    Column("recalled_at", UtcDateTime),
    # The words of title and body; SQLite has them in the FTS5 table `notification_search` too, put there by triggers.
    Column("search", Words),
    Index("ix_notifications_tenant_created_at", "tenant", "created_at"),
    Index("ix_notifications_sender_id_created_at", "sender_id", "created_at"),
    Index(
        "ix_notifications_tenant_collapse_key",
        "tenant",
        "collapse_key",
        postgresql_where=text("collapse_key IS NOT NULL"),
        sqlite_where=text("collapse_key IS NOT NULL"),
    ),
    Index(
        "ix_notifications_relay_after",
        "relay_after",
        postgresql_where=text("dispatched_at IS NULL"),
        sqlite_where=text("dispatched_at IS NULL"),
    ),
    Index("ix_notifications_search", "search", postgresql_using="gin").ddl_if(dialect="postgresql"),
)

notification_contents = Table(
    "notification_contents",
    metadata,
    # Title and body where they are not the notification's own: rendered for a locale, or for one user.
    Column("notification_id", Uuid, primary_key=True),
    Column("variant", String(80), primary_key=True),
    Column("title", Text),
    Column("body", Text),
    Column("search", Words),
)

decision_records = Table(
    "decision_records",
    metadata,
    # What routing decided and by which rules, each different outcome once; 0 is that of users without a row below.
    Column("notification_id", Uuid, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("channels", Json, nullable=False),
)

decision_users = Table(
    "decision_users",
    metadata,
    Column("notification_id", Uuid, primary_key=True),
    Column("user_id", Uuid, primary_key=True),
    Column("number", Integer, nullable=False),
    Index("ix_decision_users_user_id", "user_id"),
)

fanouts = Table(
    "fanouts",
    metadata,
    # Notifications to more people than one transaction takes: how far each has come.
    Column("notification_id", Uuid, primary_key=True),
    # Whose turn it is: senders take turns, one piece each.
    Column("sender_key", String(320), nullable=False),
    Column("after_user_id", Uuid),
    Column("served_at", UtcDateTime, nullable=False),
    Index("ix_fanouts_served_at", "served_at"),
)
