"""The mailbox's tables. Keys begin with the user, so that they can be partitioned by user without a rewrite."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Index, Integer, String, Table, Uuid, text

from notification_service.db.base import BigNumber, Json, UtcDateTime, metadata

store = Table(
    "mailbox_store",
    metadata,
    # One row. The epoch is part of every position: another database, another epoch, and old positions are refused.
    Column("name", String(16), primary_key=True),
    Column("epoch", String(8), nullable=False),
)

streams = Table(
    "user_streams",
    metadata,
    Column("user_id", Uuid, primary_key=True),
    Column("tenant", String(63), nullable=False),
    # The number of the last frame of this user's stream; 0: nothing yet. Whoever raises it holds the row's lock until
    # commit, so numbers appear in order.
    Column("top_seq", BigNumber, nullable=False, server_default="0"),
    # Items up to here may be gone: a device that has not come this far gets a reset.
    Column("floor_seq", BigNumber, nullable=False, server_default="0"),
    # The furthest any device has acknowledged.
    Column("acked_seq", BigNumber, nullable=False, server_default="0"),
    Column("acked_broadcast", BigNumber, nullable=False, server_default="0"),
    # Items of the mailbox by state; broadcasts are counted apart, because they are one row for everybody.
    Column("unread", Integer, nullable=False, server_default="0"),
    Column("unseen", Integer, nullable=False, server_default="0"),
    Column("total", Integer, nullable=False, server_default="0"),
    # Of the live broadcasts: how many this user no longer has as unread, as unseen, or at all.
    Column("broadcasts_read", Integer, nullable=False, server_default="0"),
    Column("broadcasts_seen", Integer, nullable=False, server_default="0"),
    Column("broadcasts_removed", Integer, nullable=False, server_default="0"),
    # Broadcasts up to here were before this user's time. None: not looked up yet.
    Column("broadcast_floor", BigNumber),
    # Whether RabbitMQ has the queue `user.<id>`, and how often it was declared: a publish that came back unroutable
    # clears the mark only if nobody has declared the queue again since.
    Column("queue_declared", Boolean, nullable=False, server_default=text("false")),
    Column("queue_generation", Integer, nullable=False, server_default="0"),
    # Leaves room on the page, so that the many updates of a row stay on it (no index is touched).
    postgresql_with={"fillfactor": 70},
)

items = Table(
    "mailbox_items",
    metadata,
    Column("user_id", Uuid, primary_key=True),
    Column("seq", BigNumber, primary_key=True, autoincrement=False),
    # Number of the last change; equal to `seq` until the first one (like CONDSTORE, RFC 7162).
    Column("changed_seq", BigNumber, nullable=False),
    Column("notification_id", Uuid, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime),
    Column("read_at", UtcDateTime),
    Column("seen_at", UtcDateTime),
    Column("archived_at", UtcDateTime),
    Column("snoozed_until", UtcDateTime),
    Column("deleted_at", UtcDateTime),
    # What `changed_seq` stands for, so that a device that was away learns of it by the same word.
    Column("last_change", String(16)),
    Column("pinned_at", UtcDateTime),
    # Which title and body (`notification_contents`); None: the notification's own.
    Column("variant", String(80)),
    Index("uq_mailbox_items_notification_id_user_id", "notification_id", "user_id", unique=True),
    # Only rows that changed after they arrived: new ones are found by the primary key.
    Index(
        "ix_mailbox_items_user_id_changed_seq",
        "user_id",
        "changed_seq",
        postgresql_where=text("changed_seq > seq"),
        sqlite_where=text("changed_seq > seq"),
    ),
    Index(
        "ix_mailbox_items_expires_at",
        "expires_at",
        postgresql_where=text("expires_at IS NOT NULL AND deleted_at IS NULL"),
        sqlite_where=text("expires_at IS NOT NULL AND deleted_at IS NULL"),
    ),
    Index(
        "ix_mailbox_items_snoozed_until",
        "snoozed_until",
        postgresql_where=text("snoozed_until IS NOT NULL"),
        sqlite_where=text("snoozed_until IS NOT NULL"),
    ),
)

stream_marks = Table(
    "stream_marks",
    metadata,
    # "Everything was read" and the like: one row instead of one change per item.
    Column("user_id", Uuid, primary_key=True),
    Column("seq", BigNumber, primary_key=True, autoincrement=False),
    Column("label", String(16), nullable=False),
    Column("at", UtcDateTime, nullable=False),
)

broadcast_streams = Table(
    "broadcast_streams",
    metadata,
    Column("tenant", String(63), primary_key=True),
    Column("top_seq", BigNumber, nullable=False),
    Column("floor_seq", BigNumber, nullable=False, server_default="0"),
    # Rises whenever a broadcast is added or removed, so that processes know when what they remember is old.
    Column("version", BigNumber, nullable=False, server_default="0"),
)

broadcasts = Table(
    "broadcasts",
    metadata,
    Column("tenant", String(63), primary_key=True),
    Column("seq", BigNumber, primary_key=True, autoincrement=False),
    Column("notification_id", Uuid, nullable=False, unique=True),
    # None: everyone in the tenant.
    Column("audience", Json),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime),
    # Set when it expired or was recalled: from then on it counts for nobody.
    Column("removed_at", UtcDateTime),
    # An entry that tells what became of an earlier broadcast (`recalled` or `updated`), and that never counts itself.
    Column("about", Uuid),
    Column("label", String(16)),
)

broadcast_states = Table(
    "broadcast_states",
    metadata,
    # What one user did with one broadcast; no row until they did something.
    Column("user_id", Uuid, primary_key=True),
    Column("notification_id", Uuid, primary_key=True),
    Column("broadcast_seq", BigNumber, nullable=False),
    Column("changed_seq", BigNumber, nullable=False),
    Column("read_at", UtcDateTime),
    Column("seen_at", UtcDateTime),
    Column("archived_at", UtcDateTime),
    Column("snoozed_until", UtcDateTime),
    Column("deleted_at", UtcDateTime),
    Column("last_change", String(16)),
    Column("pinned_at", UtcDateTime),
    Index("ix_broadcast_states_user_id_changed_seq", "user_id", "changed_seq"),
    Index("ix_broadcast_states_notification_id", "notification_id"),
    Index(
        "ix_broadcast_states_snoozed_until",
        "snoozed_until",
        postgresql_where=text("snoozed_until IS NOT NULL"),
        sqlite_where=text("snoozed_until IS NOT NULL"),
    ),
)

device_cursors = Table(
    "device_cursors",
    metadata,
    Column("user_id", Uuid, primary_key=True),
    Column("device_id", String(64), primary_key=True),
    Column("acked_seq", BigNumber, nullable=False),
    Column("acked_broadcast", BigNumber, nullable=False),
    # How far frames were written to this device: what lies between, it may have seen without acknowledging.
    Column("sent_seq", BigNumber, nullable=False),
    Column("sent_broadcast", BigNumber, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    # As for `user_streams`: nearly every acknowledgement changes a row, and no index is touched.
    postgresql_with={"fillfactor": 70},
)
