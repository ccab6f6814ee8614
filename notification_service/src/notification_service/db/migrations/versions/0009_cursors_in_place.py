"""Cursors are changed in their place: no index holds what changes at every acknowledgement.

Revision: 0009, after 0008.
"""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_INDEX = "ix_device_cursors_updated_at"


def upgrade() -> None:
    """Drop the index, and leave room on the pages for changed rows."""
    op.drop_index(_INDEX, "device_cursors")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE device_cursors SET (fillfactor = 70)")


def downgrade() -> None:
    """Put it back."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE device_cursors RESET (fillfactor)")
    op.create_index(_INDEX, "device_cursors", ["updated_at"])
