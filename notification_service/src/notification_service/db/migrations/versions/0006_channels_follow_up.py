"""What follows a sent delivery, turns shared out fairly, breakers for all to see, suppressed addresses of accounts.

Revision: 0006, after 0005.
"""

import sqlalchemy as sa
from alembic import op

from notification_service.db.base import UtcDateTime

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add columns and tables."""
    with op.batch_alter_table("deliveries") as deliveries:
        deliveries.add_column(sa.Column("follow_up", sa.String(length=8)))
        deliveries.add_column(sa.Column("follow_up_at", UtcDateTime()))
        deliveries.add_column(sa.Column("follow_up_attempts", sa.Integer(), server_default="0", nullable=False))
        deliveries.add_column(sa.Column("share", sa.String(length=200)))
    for name, columns, condition in (
        ("ix_deliveries_follow_up_at", ["follow_up_at"], "follow_up_at IS NOT NULL"),
        ("ix_deliveries_share", ["channel", "share", "next_attempt_at"], "share IS NOT NULL"),
    ):
        where = sa.text(condition)
        op.create_index(name, "deliveries", columns, postgresql_where=where, sqlite_where=where)
    with op.batch_alter_table("suppressions") as suppressions:
        suppressions.add_column(sa.Column("user_id", sa.Uuid()))
    op.create_index("ix_suppressions_user_id", "suppressions", ["user_id"])
    op.create_table(
        "channel_breakers",
        sa.Column("node_id", sa.String(length=100), nullable=False),
        sa.Column("channel", sa.String(length=32), nullable=False),
        sa.Column("route", sa.String(length=255), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("changed_at", UtcDateTime(), nullable=False),
        sa.Column("seen_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("node_id", "channel", "route", name=op.f("pk_channel_breakers")),
    )
    op.create_table(
        "contact_code_turns",
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("free_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_contact_code_turns")),
    )


def downgrade() -> None:
    """Take them away."""
    op.drop_table("contact_code_turns")
    op.drop_table("channel_breakers")
    op.drop_index("ix_suppressions_user_id", "suppressions")
    with op.batch_alter_table("suppressions") as suppressions:
        suppressions.drop_column("user_id")
    op.drop_index("ix_deliveries_share", "deliveries")
    op.drop_index("ix_deliveries_follow_up_at", "deliveries")
    with op.batch_alter_table("deliveries") as deliveries:
        for name in ("share", "follow_up_attempts", "follow_up_at", "follow_up"):
            deliveries.drop_column(name)
