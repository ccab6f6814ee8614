"""When users were last seen.

Revision: 0004, after 0003.
"""

import sqlalchemy as sa
from alembic import op

from notification_service.db.base import UtcDateTime

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "presence_last_seen",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("seen_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_presence_last_seen")),
    )


def downgrade() -> None:
    """Drop them."""
    op.drop_table("presence_last_seen")
