"""Erasures of personal data, audit lines on their way, and no welcome unless somebody wants one.

Revision: 0005, after 0004.
"""

import sqlalchemy as sa
from alembic import op

from notification_service.db.base import Json, UtcDateTime

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "audit_outbox",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("event", Json, nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_outbox")),
    )
    op.create_index("ix_audit_outbox_created_at", "audit_outbox", ["created_at", "id"])
    op.create_table(
        "personal_data_erasures",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("external_id", sa.String(length=128), nullable=True),
        sa.Column("requested_at", UtcDateTime(), nullable=False),
        sa.Column("sweeps", sa.Integer(), server_default="0", nullable=False),
        sa.Column("next_sweep_at", UtcDateTime(), nullable=True),
        sa.Column("report", Json, nullable=False),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_personal_data_erasures")),
    )
    op.create_index(
        "ix_personal_data_erasures_next_sweep_at",
        "personal_data_erasures",
        ["next_sweep_at"],
        postgresql_where=sa.text("next_sweep_at IS NOT NULL"),
        sqlite_where=sa.text("next_sweep_at IS NOT NULL"),
    )
    # New users lead to `user.welcome` from now on: an import of a customer base must not write to everybody in it.
    _set_welcome(is_active=False)


def downgrade() -> None:
    """Drop them."""
    _set_welcome(is_active=True)
    op.drop_table("personal_data_erasures")
    op.drop_table("audit_outbox")


def _set_welcome(*, is_active: bool) -> None:
    types = sa.table(
        "event_types", *(sa.column(name) for name in ("tenant", "code")), sa.column("is_active", sa.Boolean())
    )
    op.execute(
        sa.update(types).where(types.c.tenant == "*", types.c.code == "user.welcome").values(is_active=is_active)
    )
