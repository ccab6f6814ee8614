"""The tables of contacts and of suppressed addresses."""

from __future__ import annotations

from sqlalchemy import Column, Index, Integer, String, Table, Text, UniqueConstraint, Uuid

from notification_service.db.base import UtcDateTime, metadata

contacts = Table(
    "contacts",
    metadata,
    Column("user_id", Uuid, primary_key=True),
    Column("id", Uuid, primary_key=True),
    Column("tenant", String(63), nullable=False),
    Column("channel", String(32), nullable=False),
    # Encrypted: a chat's webhook address or a push token lets whoever has it write to that person.
    Column("address", Text, nullable=False),
    # SHA-256 of channel and address: finds the same address without decrypting all.
    Column("address_hash", String(64), nullable=False),
    # What is shown of the address.
    Column("hint", String(255), nullable=False),
    # Encrypted as well: a signing secret, or the keys of a Web Push subscription.
    Column("secret", Text),
    Column("label", String(100), nullable=False),
    Column("verified_at", UtcDateTime),
    Column("disabled_at", UtcDateTime),
    Column("disabled_reason", String(255)),
    Column("code_hash", String(64)),
    Column("code_expires_at", UtcDateTime),
    Column("code_sent_at", UtcDateTime),
    Column("code_attempts", Integer, nullable=False, server_default="0"),
    Column("created_at", UtcDateTime, nullable=False),
    UniqueConstraint("user_id", "channel", "address_hash"),
    # A chat is linked by the code alone: whoever presents it is not logged in.
    Index("ix_contacts_channel_code_hash", "channel", "code_hash"),
)

suppressions = Table(
    "suppressions",
    metadata,
    Column("tenant", String(63), primary_key=True),
    Column("channel", String(32), primary_key=True),
    Column("address_hash", String(64), primary_key=True),
    Column("hint", String(255), nullable=False),
    Column("reason", String(40), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    # Whose address it was when the provider refused it; null: an admin gave it.
    Column("user_id", Uuid),
    Index("ix_suppressions_user_id", "user_id"),
)

contact_code_turns = Table(
    "contact_code_turns",
    metadata,
    # A hash of the user or of the address; from when the next code to it is free.
    Column("key", String(64), primary_key=True),
    Column("free_at", UtcDateTime, nullable=False),
)
