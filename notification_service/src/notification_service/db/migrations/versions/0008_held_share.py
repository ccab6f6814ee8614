"""Deliveries of a flood wait in the table for room in their channel's queue.

Revision: 0008, after 0007.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_INDEX = "ix_deliveries_held_share"


def upgrade() -> None:
    """Add the column and its index."""
    with op.batch_alter_table("deliveries") as deliveries:
        deliveries.add_column(sa.Column("held_share", sa.String(length=200)))
    where = sa.text("held_share IS NOT NULL")
    columns = ["channel", "tenant", "held_share", "created_at", "id"]
    op.create_index(_INDEX, "deliveries", columns, postgresql_where=where, sqlite_where=where)


def downgrade() -> None:
    """Take them away; what waited is published by the sweep."""
    op.drop_index(_INDEX, "deliveries")
    with op.batch_alter_table("deliveries") as deliveries:
        deliveries.drop_column("held_share")
