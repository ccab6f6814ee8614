"""The table of erasures: what was asked for, how far it has come, and what was found."""

from __future__ import annotations

from sqlalchemy import Column, Index, Integer, String, Table, Uuid, text

from notification_service.db.base import Json, UtcDateTime, metadata

erasures = Table(
    "personal_data_erasures",
    metadata,
    Column("user_id", Uuid, primary_key=True),
    Column("tenant", String(63), nullable=False),
    # Needed to find requests that name the user so; blanked with the last sweep.
    Column("external_id", String(128)),
    Column("requested_at", UtcDateTime, nullable=False),
    Column("sweeps", Integer, nullable=False, server_default="0"),
    # None: done.
    Column("next_sweep_at", UtcDateTime),
    # Rows erased so far, by kind.
    Column("report", Json, nullable=False),
    Index(
        "ix_personal_data_erasures_next_sweep_at",
        "next_sweep_at",
        postgresql_where=text("next_sweep_at IS NOT NULL"),
        sqlite_where=text("next_sweep_at IS NOT NULL"),
    ),
)
