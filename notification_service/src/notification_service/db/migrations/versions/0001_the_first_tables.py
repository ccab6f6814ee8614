"""The first tables, the store's epoch, and the built-in event types.

Revision: 0001, the first.
"""

import secrets
from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

from notification_service.db.base import BigNumber, Json, UtcDateTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


BUILT_IN = (
    ("task.assigned", "Task assigned", "tasks"),
    ("task.updated", "Task updated", "tasks"),
    ("task.completed", "Task completed", "tasks"),
    ("order.created", "Order received", "orders"),
    ("order.status_changed", "Order status changed", "orders"),
    ("comment.created", "New comment", "comments"),
    ("login.alert", "New sign-in to your account", "security"),
    ("user.welcome", "Welcome", "account"),
    ("digest.weekly", "Your week", "digests"),
)


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "broadcast_states",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("notification_id", sa.Uuid(), nullable=False),
        sa.Column("broadcast_seq", BigNumber, nullable=False),
        sa.Column("changed_seq", BigNumber, nullable=False),
        sa.Column("read_at", UtcDateTime(), nullable=True),
        sa.Column("seen_at", UtcDateTime(), nullable=True),
        sa.Column("archived_at", UtcDateTime(), nullable=True),
        sa.Column("snoozed_until", UtcDateTime(), nullable=True),
        sa.Column("deleted_at", UtcDateTime(), nullable=True),
        sa.Column("last_change", sa.String(length=16), nullable=True),
        sa.PrimaryKeyConstraint("user_id", "notification_id", name=op.f("pk_broadcast_states")),
    )
    op.create_index("ix_broadcast_states_notification_id", "broadcast_states", ["notification_id"], unique=False)
    op.create_index(
        "ix_broadcast_states_user_id_changed_seq", "broadcast_states", ["user_id", "changed_seq"], unique=False
    )
    op.create_table(
        "broadcast_streams",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("top_seq", BigNumber, nullable=False),
        sa.Column("floor_seq", BigNumber, server_default="0", nullable=False),
        sa.Column("version", BigNumber, server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("tenant", name=op.f("pk_broadcast_streams")),
    )
    op.create_table(
        "broadcasts",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("seq", BigNumber, autoincrement=False, nullable=False),
        sa.Column("notification_id", sa.Uuid(), nullable=False),
        sa.Column("audience", Json, nullable=True),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("expires_at", UtcDateTime(), nullable=True),
        sa.Column("removed_at", UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("tenant", "seq", name=op.f("pk_broadcasts")),
        sa.UniqueConstraint("notification_id", name=op.f("uq_broadcasts_notification_id")),
    )
    op.create_table(
        "dead_letters",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant", sa.String(length=63), nullable=True),
        sa.Column("reason", sa.String(length=40), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("source", sa.String(length=255), nullable=True),
        sa.Column("exchange", sa.String(length=255), nullable=True),
        sa.Column("routing_key", sa.String(length=255), nullable=True),
        sa.Column("message_id", sa.String(length=255), nullable=True),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("is_truncated", sa.Boolean(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("replayed_at", UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dead_letters")),
    )
    op.create_index("ix_dead_letters_created_at", "dead_letters", ["created_at"], unique=False)
    op.create_index("ix_dead_letters_reason_created_at", "dead_letters", ["reason", "created_at"], unique=False)
    op.create_table(
        "device_cursors",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("device_id", sa.String(length=64), nullable=False),
        sa.Column("acked_seq", BigNumber, nullable=False),
        sa.Column("acked_broadcast", BigNumber, nullable=False),
        sa.Column("sent_seq", BigNumber, nullable=False),
        sa.Column("sent_broadcast", BigNumber, nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", "device_id", name=op.f("pk_device_cursors")),
    )
    op.create_index("ix_device_cursors_updated_at", "device_cursors", ["updated_at"], unique=False)
    op.create_table(
        "event_types",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("code", sa.String(length=100), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("category", sa.String(length=64), nullable=True),
        sa.Column("channels", Json, nullable=True),
        sa.Column("default_enabled", sa.Boolean(), nullable=False),
        sa.Column("mandatory", sa.Boolean(), nullable=False),
        sa.Column("priority", sa.String(length=16), nullable=False),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("data_schema", Json, nullable=True),
        sa.Column("retention_days", sa.Integer(), nullable=True),
        sa.Column("throttle", Json, nullable=True),
        sa.Column("digest", Json, nullable=True),
        sa.Column("escalation", Json, nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "code", name=op.f("pk_event_types")),
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("caller_id", sa.Uuid(), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("request_hash", sa.String(length=64), nullable=False),
        sa.Column("notification_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("caller_id", "key", name=op.f("pk_idempotency_keys")),
    )
    op.create_index("ix_idempotency_keys_created_at", "idempotency_keys", ["created_at"], unique=False)
    op.create_table(
        "identity_groups",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("slug", sa.String(length=100), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_identity_groups")),
    )
    op.create_table(
        "identity_memberships",
        sa.Column("group_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("group_id", "user_id", name=op.f("pk_identity_memberships")),
    )
    op.create_index("ix_identity_memberships_user_id", "identity_memberships", ["user_id"], unique=False)
    op.create_table(
        "identity_progress",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("revision", BigNumber, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_identity_progress")),
    )
    op.create_table(
        "identity_users",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("external_id", sa.String(length=128), nullable=True),
        sa.Column("username", sa.String(length=150), nullable=False),
        sa.Column("email", sa.String(length=320), nullable=True),
        sa.Column("email_verified", sa.Boolean(), nullable=False),
        sa.Column("phone", sa.String(length=32), nullable=True),
        sa.Column("locale", sa.String(length=35), nullable=False),
        sa.Column("timezone", sa.String(length=64), nullable=False),
        sa.Column("roles", Json, nullable=False),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_identity_users")),
    )
    op.create_index("ix_identity_users_tenant_external_id", "identity_users", ["tenant", "external_id"], unique=False)
    op.create_table(
        "mailbox_items",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("seq", BigNumber, autoincrement=False, nullable=False),
        sa.Column("changed_seq", BigNumber, nullable=False),
        sa.Column("notification_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("expires_at", UtcDateTime(), nullable=True),
        sa.Column("read_at", UtcDateTime(), nullable=True),
        sa.Column("seen_at", UtcDateTime(), nullable=True),
        sa.Column("archived_at", UtcDateTime(), nullable=True),
        sa.Column("snoozed_until", UtcDateTime(), nullable=True),
        sa.Column("deleted_at", UtcDateTime(), nullable=True),
        sa.Column("last_change", sa.String(length=16), nullable=True),
        sa.PrimaryKeyConstraint("user_id", "seq", name=op.f("pk_mailbox_items")),
    )
    op.create_index(
        "ix_mailbox_items_expires_at",
        "mailbox_items",
        ["expires_at"],
        unique=False,
        postgresql_where=sa.text("expires_at IS NOT NULL AND deleted_at IS NULL"),
        sqlite_where=sa.text("expires_at IS NOT NULL AND deleted_at IS NULL"),
    )
    op.create_index(
        "ix_mailbox_items_user_id_changed_seq",
        "mailbox_items",
        ["user_id", "changed_seq"],
        unique=False,
        postgresql_where=sa.text("changed_seq > seq"),
        sqlite_where=sa.text("changed_seq > seq"),
    )
    op.create_index(
        "uq_mailbox_items_notification_id_user_id", "mailbox_items", ["notification_id", "user_id"], unique=True
    )
    op.create_table(
        "mailbox_store",
        sa.Column("name", sa.String(length=16), nullable=False),
        sa.Column("epoch", sa.String(length=8), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_mailbox_store")),
    )
    op.create_table(
        "notifications",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("sender_id", sa.Uuid(), nullable=True),
        sa.Column("sender_name", sa.String(length=255), nullable=True),
        sa.Column("request_hash", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("event_type", sa.String(length=100), nullable=False),
        sa.Column("title", sa.Text(), nullable=True),
        sa.Column("body", sa.Text(), nullable=True),
        sa.Column("data", Json, nullable=False),
        sa.Column("actions", Json, nullable=False),
        sa.Column("priority", sa.String(length=16), nullable=False),
        sa.Column("category", sa.String(length=64), nullable=True),
        sa.Column("tags", Json, nullable=False),
        sa.Column("collapse_key", sa.String(length=128), nullable=True),
        sa.Column("channels", Json, nullable=True),
        sa.Column("recipients", Json, nullable=False),
        sa.Column("group_id", sa.Uuid(), nullable=True),
        sa.Column("locale", sa.String(length=35), nullable=True),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("expires_at", UtcDateTime(), nullable=True),
        sa.Column("deliver_at", UtcDateTime(), nullable=True),
        sa.Column("routed_at", UtcDateTime(), nullable=True),
        sa.Column("dispatched_at", UtcDateTime(), nullable=True),
        sa.Column("relay_after", UtcDateTime(), nullable=False),
        sa.Column("recipients_count", sa.Integer(), nullable=True),
        sa.Column("problems", Json, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notifications")),
    )
    op.create_index(
        "ix_notifications_relay_after",
        "notifications",
        ["relay_after"],
        unique=False,
        postgresql_where=sa.text("dispatched_at IS NULL"),
        sqlite_where=sa.text("dispatched_at IS NULL"),
    )
    op.create_index("ix_notifications_sender_id_created_at", "notifications", ["sender_id", "created_at"], unique=False)
    op.create_index("ix_notifications_tenant_created_at", "notifications", ["tenant", "created_at"], unique=False)
    op.create_table(
        "stream_marks",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("seq", BigNumber, autoincrement=False, nullable=False),
        sa.Column("label", sa.String(length=16), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", "seq", name=op.f("pk_stream_marks")),
    )
    op.create_table(
        "user_streams",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("top_seq", BigNumber, server_default="0", nullable=False),
        sa.Column("floor_seq", BigNumber, server_default="0", nullable=False),
        sa.Column("acked_seq", BigNumber, server_default="0", nullable=False),
        sa.Column("acked_broadcast", BigNumber, server_default="0", nullable=False),
        sa.Column("unread", sa.Integer(), server_default="0", nullable=False),
        sa.Column("unseen", sa.Integer(), server_default="0", nullable=False),
        sa.Column("total", sa.Integer(), server_default="0", nullable=False),
        sa.Column("broadcasts_read", sa.Integer(), server_default="0", nullable=False),
        sa.Column("broadcasts_seen", sa.Integer(), server_default="0", nullable=False),
        sa.Column("broadcasts_removed", sa.Integer(), server_default="0", nullable=False),
        sa.Column("broadcast_floor", BigNumber, nullable=True),
        sa.Column("queue_declared", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("queue_generation", sa.Integer(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_user_streams")),
        postgresql_with={"fillfactor": 70},
    )

    op.execute(
        sa.text("INSERT INTO mailbox_store (name, epoch) VALUES ('mailbox', :epoch)").bindparams(
            epoch=secrets.token_hex(4)
        )
    )
    now = datetime.now(UTC)
    op.bulk_insert(
        sa.table(
            "event_types",
            *(sa.column(name) for name in ("tenant", "code", "name", "description", "category", "priority")),
            *(sa.column(name, sa.Boolean()) for name in ("default_enabled", "mandatory", "is_active")),
            sa.column("version", sa.Integer()),
            sa.column("created_at", UtcDateTime()),
            sa.column("updated_at", UtcDateTime()),
        ),
        [
            {
                "tenant": "*",
                "code": code,
                "name": name,
                "description": "",
                "category": category,
                "priority": "high" if category == "security" else "normal",
                "default_enabled": True,
                "mandatory": category == "security",
                "is_active": True,
                "version": 1,
                "created_at": now,
                "updated_at": now,
            }
            for code, name, category in BUILT_IN
        ],
    )


def downgrade() -> None:
    """Take back."""
    op.drop_table("user_streams")
    op.drop_table("stream_marks")
    op.drop_index("ix_notifications_tenant_created_at", table_name="notifications")
    op.drop_index("ix_notifications_sender_id_created_at", table_name="notifications")
    op.drop_index(
        "ix_notifications_relay_after",
        table_name="notifications",
        postgresql_where=sa.text("dispatched_at IS NULL"),
        sqlite_where=sa.text("dispatched_at IS NULL"),
    )
    op.drop_table("notifications")
    op.drop_table("mailbox_store")
    op.drop_index("uq_mailbox_items_notification_id_user_id", table_name="mailbox_items")
    op.drop_index(
        "ix_mailbox_items_user_id_changed_seq",
        table_name="mailbox_items",
        postgresql_where=sa.text("changed_seq > seq"),
        sqlite_where=sa.text("changed_seq > seq"),
    )
    op.drop_index(
        "ix_mailbox_items_expires_at",
        table_name="mailbox_items",
        postgresql_where=sa.text("expires_at IS NOT NULL AND deleted_at IS NULL"),
        sqlite_where=sa.text("expires_at IS NOT NULL AND deleted_at IS NULL"),
    )
    op.drop_table("mailbox_items")
    op.drop_index("ix_identity_users_tenant_external_id", table_name="identity_users")
    op.drop_table("identity_users")
    op.drop_table("identity_progress")
    op.drop_index("ix_identity_memberships_user_id", table_name="identity_memberships")
    op.drop_table("identity_memberships")
    op.drop_table("identity_groups")
    op.drop_index("ix_idempotency_keys_created_at", table_name="idempotency_keys")
    op.drop_table("idempotency_keys")
    op.drop_table("event_types")
    op.drop_index("ix_device_cursors_updated_at", table_name="device_cursors")
    op.drop_table("device_cursors")
    op.drop_index("ix_dead_letters_reason_created_at", table_name="dead_letters")
    op.drop_index("ix_dead_letters_created_at", table_name="dead_letters")
    op.drop_table("dead_letters")
    op.drop_table("broadcasts")
    op.drop_table("broadcast_streams")
    op.drop_index("ix_broadcast_states_user_id_changed_seq", table_name="broadcast_states")
    op.drop_index("ix_broadcast_states_notification_id", table_name="broadcast_states")
    op.drop_table("broadcast_states")
