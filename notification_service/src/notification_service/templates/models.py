"""Tables of templates: the current text, and every version there was."""

from __future__ import annotations

from sqlalchemy import Column, Integer, String, Table, Text, Uuid

from notification_service.db.base import UtcDateTime, metadata

templates = Table(
    "templates",
    metadata,
    Column("tenant", String(63), primary_key=True),
    Column("event_type", String(100), primary_key=True),
    Column("channel", String(16), primary_key=True),
    Column("locale", String(35), primary_key=True),
    Column("title", Text),
    Column("body", Text),
    Column("html", Text),
    Column("version", Integer, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
)

template_versions = Table(
    "template_versions",
    metadata,
    Column("tenant", String(63), primary_key=True),
    Column("event_type", String(100), primary_key=True),
    Column("channel", String(16), primary_key=True),
    Column("locale", String(35), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("title", Text),
    Column("body", Text),
    Column("html", Text),
    Column("created_at", UtcDateTime, nullable=False),
    # Who wrote it; None: it came with the event type.
    Column("author_id", Uuid),
)
