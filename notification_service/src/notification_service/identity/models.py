"""The mirror's tables. Written only from identity events and from full re-reads, never by this service's own will."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Index, String, Table, Uuid

from notification_service.db.base import BigNumber, Json, UtcDateTime, metadata

users = Table(
    "identity_users",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("tenant", String(63), nullable=False),
    Column("external_id", String(128)),
    Column("username", String(150), nullable=False),
    Column("email", String(320)),
    Column("email_verified", Boolean, nullable=False),
    Column("phone", String(32)),
    Column("locale", String(35), nullable=False),
    Column("timezone", String(64), nullable=False),
    Column("roles", Json, nullable=False),
    Column("is_active", Boolean, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Index("ix_identity_users_tenant_external_id", "tenant", "external_id"),
)

groups = Table(
    "identity_groups",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("tenant", String(63), nullable=False),
    Column("slug", String(100), nullable=False),
    Column("name", String(200), nullable=False),
)

memberships = Table(
    "identity_memberships",
    metadata,
    Column("group_id", Uuid, primary_key=True),
    Column("user_id", Uuid, primary_key=True),
    Index("ix_identity_memberships_user_id", "user_id"),
)

progress = Table(
    "identity_progress",
    metadata,
    # One row: the revision of the last identity event the mirror contains.
    Column("name", String(32), primary_key=True),
    Column("revision", BigNumber, nullable=False),
)

audit_outbox = Table(
    "audit_outbox",
    metadata,
    # Lines of the audit log that the auth service does not have yet.
    Column("id", Uuid, primary_key=True),
    Column("event", Json, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Index("ix_audit_outbox_created_at", "created_at", "id"),
)
