"""Templates, preferences, digests, schedules, escalations, and what was decided.

Revision: 0002, after 0001.
"""

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

from notification_service.db.base import BigNumber, Json, UtcDateTime

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_event_types = sa.table(
    "event_types",
    *(sa.column(name) for name in ("tenant", "code", "name", "description", "category", "priority")),
    *(sa.column(name, sa.Boolean()) for name in ("default_enabled", "mandatory", "is_active")),
    sa.column("channels", Json),
    sa.column("version", sa.Integer()),
    sa.column("created_at", UtcDateTime()),
    sa.column("updated_at", UtcDateTime()),
)


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "analytics_hours",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("hour", UtcDateTime(), nullable=False),
        sa.Column("event_type", sa.String(length=100), nullable=False),
        sa.Column("channel", sa.String(length=16), nullable=False),
        sa.Column("sent", sa.Integer(), nullable=False),
        sa.Column("delivered", sa.Integer(), nullable=False),
        sa.Column("acked", sa.Integer(), nullable=False),
        sa.Column("read", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.Column("suppressed", sa.Integer(), nullable=False),
        sa.Column("latencies", Json, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "hour", "event_type", "channel", name=op.f("pk_analytics_hours")),
    )
    op.create_table(
        "analytics_progress",
        sa.Column("name", sa.String(length=16), nullable=False),
        sa.Column("rolled_up_to", UtcDateTime(), nullable=False),
        sa.Column("held_until", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_analytics_progress")),
    )
    op.create_table(
        "decision_records",
        sa.Column("notification_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("channels", Json, nullable=False),
        sa.PrimaryKeyConstraint("notification_id", "number", name=op.f("pk_decision_records")),
    )
    op.create_table(
        "decision_users",
        sa.Column("notification_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("notification_id", "user_id", name=op.f("pk_decision_users")),
    )
    op.create_index("ix_decision_users_user_id", "decision_users", ["user_id"], unique=False)
    op.create_table(
        "digest_items",
        sa.Column("digest_id", sa.Uuid(), nullable=False),
        sa.Column("notification_id", sa.Uuid(), nullable=False),
        sa.Column("added_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("digest_id", "notification_id", name=op.f("pk_digest_items")),
    )
    op.create_index("ix_digest_items_notification_id", "digest_items", ["notification_id"], unique=False)
    op.create_table(
        "digests",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("channel", sa.String(length=16), nullable=False),
        sa.Column("key", sa.String(length=110), nullable=False),
        sa.Column("due_at", UtcDateTime(), nullable=False),
        sa.Column("opened_at", UtcDateTime(), nullable=False),
        sa.Column("closed_at", UtcDateTime(), nullable=True),
        sa.Column("told_count", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_digests")),
    )
    op.create_index(
        "ix_digests_due_at",
        "digests",
        ["due_at"],
        unique=False,
        postgresql_where=sa.text("closed_at IS NULL"),
        sqlite_where=sa.text("closed_at IS NULL"),
    )
    op.create_index("ix_digests_user_id", "digests", ["user_id"], unique=False)
    op.create_index(
        "uq_digests_open",
        "digests",
        ["user_id", "channel", "key"],
        unique=True,
        postgresql_where=sa.text("closed_at IS NULL"),
        sqlite_where=sa.text("closed_at IS NULL"),
    )
    op.create_table(
        "escalations",
        sa.Column("notification_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("due_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("notification_id", "user_id", name=op.f("pk_escalations")),
    )
    op.create_index("ix_escalations_due_at", "escalations", ["due_at"], unique=False)
    op.create_index("ix_escalations_user_id", "escalations", ["user_id"], unique=False)
    op.create_table(
        "fanouts",
        sa.Column("notification_id", sa.Uuid(), nullable=False),
        sa.Column("sender_key", sa.String(length=320), nullable=False),
        sa.Column("after_user_id", sa.Uuid(), nullable=True),
        sa.Column("served_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("notification_id", name=op.f("pk_fanouts")),
    )
    op.create_index("ix_fanouts_served_at", "fanouts", ["served_at"], unique=False)
    op.create_table(
        "notification_contents",
        sa.Column("notification_id", sa.Uuid(), nullable=False),
        sa.Column("variant", sa.String(length=80), nullable=False),
        sa.Column("title", sa.Text(), nullable=True),
        sa.Column("body", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("notification_id", "variant", name=op.f("pk_notification_contents")),
    )
    op.create_table(
        "preference_defaults",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("role", sa.String(length=32), nullable=False),
        sa.Column("document", Json, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "role", name=op.f("pk_preference_defaults")),
    )
    op.create_table(
        "schedules",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("sender_id", sa.Uuid(), nullable=True),
        sa.Column("sender_name", sa.String(length=255), nullable=True),
        sa.Column("request", Json, nullable=False),
        sa.Column("recurrence", Json, nullable=True),
        sa.Column("next_at", UtcDateTime(), nullable=True),
        sa.Column("fired_count", sa.Integer(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_schedules")),
    )
    op.create_index("ix_schedules_next_at", "schedules", ["next_at"], unique=False)
    op.create_index("ix_schedules_tenant_id", "schedules", ["tenant", "id"], unique=False)
    op.create_table(
        "template_versions",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("event_type", sa.String(length=100), nullable=False),
        sa.Column("channel", sa.String(length=16), nullable=False),
        sa.Column("locale", sa.String(length=35), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("title", sa.Text(), nullable=True),
        sa.Column("body", sa.Text(), nullable=True),
        sa.Column("html", sa.Text(), nullable=True),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("author_id", sa.Uuid(), nullable=True),
        sa.PrimaryKeyConstraint(
            "tenant", "event_type", "channel", "locale", "version", name=op.f("pk_template_versions")
        ),
    )
    op.create_table(
        "templates",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("event_type", sa.String(length=100), nullable=False),
        sa.Column("channel", sa.String(length=16), nullable=False),
        sa.Column("locale", sa.String(length=35), nullable=False),
        sa.Column("title", sa.Text(), nullable=True),
        sa.Column("body", sa.Text(), nullable=True),
        sa.Column("html", sa.Text(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "event_type", "channel", "locale", name=op.f("pk_templates")),
    )
    op.create_table(
        "tenant_settings",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("version", BigNumber, nullable=False),
        sa.Column("default_locale", sa.String(length=35), nullable=False),
        sa.Column("unknown_event_types", sa.String(length=8), nullable=False),
        sa.Column("branding", Json, nullable=True),
        sa.Column("html_layout", sa.Text(), nullable=True),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", name=op.f("pk_tenant_settings")),
    )
    op.create_table(
        "throttle_counters",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("event_type", sa.String(length=100), nullable=False),
        sa.Column("window_start", UtcDateTime(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", "event_type", "window_start", name=op.f("pk_throttle_counters")),
    )
    op.create_index("ix_throttle_counters_window_start", "throttle_counters", ["window_start"], unique=False)
    op.create_table(
        "user_preferences",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("document", Json, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_user_preferences")),
    )
    op.create_index("ix_user_preferences_tenant", "user_preferences", ["tenant"], unique=False)
    op.add_column("broadcast_states", sa.Column("pinned_at", UtcDateTime(), nullable=True))
    op.create_index(
        "ix_broadcast_states_snoozed_until",
        "broadcast_states",
        ["snoozed_until"],
        unique=False,
        postgresql_where=sa.text("snoozed_until IS NOT NULL"),
        sqlite_where=sa.text("snoozed_until IS NOT NULL"),
    )
    op.add_column("broadcasts", sa.Column("about", sa.Uuid(), nullable=True))
    op.add_column("broadcasts", sa.Column("label", sa.String(length=16), nullable=True))
    op.add_column("mailbox_items", sa.Column("pinned_at", UtcDateTime(), nullable=True))
    op.add_column("mailbox_items", sa.Column("variant", sa.String(length=80), nullable=True))
    op.create_index(
        "ix_mailbox_items_snoozed_until",
        "mailbox_items",
        ["snoozed_until"],
        unique=False,
        postgresql_where=sa.text("snoozed_until IS NOT NULL"),
        sqlite_where=sa.text("snoozed_until IS NOT NULL"),
    )
    op.add_column("notifications", sa.Column("rendered", sa.Integer(), server_default="0", nullable=False))
    op.add_column("notifications", sa.Column("version", sa.Integer(), server_default="1", nullable=False))
    op.add_column("notifications", sa.Column("updated_at", UtcDateTime(), nullable=True))
    op.add_column("notifications", sa.Column("recalled_at", UtcDateTime(), nullable=True))
    op.create_index(
        "ix_notifications_tenant_collapse_key",
        "notifications",
        ["tenant", "collapse_key"],
        unique=False,
        postgresql_where=sa.text("collapse_key IS NOT NULL"),
        sqlite_where=sa.text("collapse_key IS NOT NULL"),
    )
    now = datetime.now(UTC)
    op.bulk_insert(
        _event_types,
        [
            {
                "tenant": "*",
                "code": "digest.summary",
                "name": "What you missed",
                "description": "",
                "category": "digests",
                "priority": "normal",
                "default_enabled": True,
                "mandatory": False,
                "is_active": True,
                "version": 1,
                "created_at": now,
                "updated_at": now,
            }
        ],
    )
    for code, channels in (("login.alert", ["in_app", "email"]), ("user.welcome", ["in_app", "email"])):
        op.execute(
            sa.update(_event_types)
            .where(_event_types.c.tenant == "*", _event_types.c.code == code)
            .values(channels=channels)
        )
    # The weekly summary comes to whoever asks for it.
    op.execute(
        sa.update(_event_types)
        .where(_event_types.c.tenant == "*", _event_types.c.code == "digest.weekly")
        .values(default_enabled=False)
    )


def downgrade() -> None:
    """Drop them."""
    op.execute(sa.delete(_event_types).where(_event_types.c.tenant == "*", _event_types.c.code == "digest.summary"))
    op.drop_index(
        "ix_notifications_tenant_collapse_key",
        table_name="notifications",
        postgresql_where=sa.text("collapse_key IS NOT NULL"),
        sqlite_where=sa.text("collapse_key IS NOT NULL"),
    )
    op.drop_column("notifications", "recalled_at")
    op.drop_column("notifications", "updated_at")
    op.drop_column("notifications", "version")
    op.drop_column("notifications", "rendered")
    op.drop_index(
        "ix_mailbox_items_snoozed_until",
        table_name="mailbox_items",
        postgresql_where=sa.text("snoozed_until IS NOT NULL"),
        sqlite_where=sa.text("snoozed_until IS NOT NULL"),
    )
    op.drop_column("mailbox_items", "variant")
    op.drop_column("mailbox_items", "pinned_at")
    op.drop_column("broadcasts", "label")
    op.drop_column("broadcasts", "about")
    op.drop_index(
        "ix_broadcast_states_snoozed_until",
        table_name="broadcast_states",
        postgresql_where=sa.text("snoozed_until IS NOT NULL"),
        sqlite_where=sa.text("snoozed_until IS NOT NULL"),
    )
    op.drop_column("broadcast_states", "pinned_at")
    op.drop_index("ix_user_preferences_tenant", table_name="user_preferences")
    op.drop_table("user_preferences")
    op.drop_index("ix_throttle_counters_window_start", table_name="throttle_counters")
    op.drop_table("throttle_counters")
    op.drop_table("tenant_settings")
    op.drop_table("templates")
    op.drop_table("template_versions")
    op.drop_index("ix_schedules_tenant_id", table_name="schedules")
    op.drop_index("ix_schedules_next_at", table_name="schedules")
    op.drop_table("schedules")
    op.drop_table("preference_defaults")
    op.drop_table("notification_contents")
    op.drop_index("ix_fanouts_served_at", table_name="fanouts")
    op.drop_table("fanouts")
    op.drop_index("ix_escalations_user_id", table_name="escalations")
    op.drop_index("ix_escalations_due_at", table_name="escalations")
    op.drop_table("escalations")
    op.drop_index(
        "uq_digests_open",
        table_name="digests",
        postgresql_where=sa.text("closed_at IS NULL"),
        sqlite_where=sa.text("closed_at IS NULL"),
    )
    op.drop_index("ix_digests_user_id", table_name="digests")
    op.drop_index(
        "ix_digests_due_at",
        table_name="digests",
        postgresql_where=sa.text("closed_at IS NULL"),
        sqlite_where=sa.text("closed_at IS NULL"),
    )
    op.drop_table("digests")
    op.drop_index("ix_digest_items_notification_id", table_name="digest_items")
    op.drop_table("digest_items")
    op.drop_index("ix_decision_users_user_id", table_name="decision_users")
    op.drop_table("decision_users")
    op.drop_table("decision_records")
    op.drop_table("analytics_progress")
    op.drop_table("analytics_hours")
