"""Reading and writing contacts."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.contacts.models import contacts
from notification_service.db.base import AnyRow
from notification_service.db.dialects import insert_into

MAX_CODE_ATTEMPTS: Final = 5


async def upsert_contact(connection: AsyncConnection, values: dict[str, Any]) -> AnyRow:
    """Store a contact, or bring the same address of the same user up to date: enabled again, with the new secret."""
    insertion = insert_into(connection, contacts).values(**values)
    statement = insertion.on_conflict_do_update(
        index_elements=[contacts.c.user_id, contacts.c.channel, contacts.c.address_hash],
        set_={
            **{name: insertion.excluded[name] for name in ("address", "secret", "label", "hint")},
            "disabled_at": None,
            "disabled_reason": None,
        },
    ).returning(*contacts.c)
    return (await connection.execute(statement)).one()


async def find_contact(connection: AsyncConnection, user_id: UUID, contact_id: UUID) -> AnyRow | None:
    """One contact of a user."""
    statement = select(contacts).where(contacts.c.user_id == user_id, contacts.c.id == contact_id)
    return (await connection.execute(statement)).one_or_none()


async def find_same(connection: AsyncConnection, user_id: UUID, channel: str, address_hash: str) -> AnyRow | None:
    """The user's contact with this address."""
    columns = contacts.c
    statement = select(contacts).where(
        columns.user_id == user_id, columns.channel == channel, columns.address_hash == address_hash
    )
    return (await connection.execute(statement)).one_or_none()


async def list_contacts(
    connection: AsyncConnection, user_id: UUID, *, channel: str | None, after: UUID | None, limit: int
) -> list[AnyRow]:
    """A user's contacts, oldest first."""
    query = select(contacts).where(contacts.c.user_id == user_id).order_by(contacts.c.id).limit(limit)
    if channel is not None:
        query = query.where(contacts.c.channel == channel)
    if after is not None:
        query = query.where(contacts.c.id > after)
    return list((await connection.execute(query)).all())


async def count_contacts(connection: AsyncConnection, user_id: UUID) -> int:
    """How many a user has."""
    statement = select(func.count()).select_from(contacts).where(contacts.c.user_id == user_id)
    return int((await connection.execute(statement)).scalar_one())


async def delete_contact(connection: AsyncConnection, user_id: UUID, contact_id: UUID) -> bool:
    """Delete one; answers whether it was there."""
    statement = delete(contacts).where(contacts.c.user_id == user_id, contacts.c.id == contact_id)
    return bool((await connection.execute(statement)).rowcount)


async def set_code(
    connection: AsyncConnection, contact: AnyRow, *, code_hash: str, now: datetime, expires_at: datetime
) -> None:
    """A new code replaces the one before."""
    await connection.execute(
        update(contacts)
        .where(contacts.c.user_id == contact.user_id, contacts.c.id == contact.id)
        .values(code_hash=code_hash, code_sent_at=now, code_expires_at=expires_at, code_attempts=0)
    )


async def count_code_attempt(connection: AsyncConnection, contact: AnyRow, now: datetime) -> str | None:
    """Count one try against the code; answers the code's hash while it may still be tried.

    Counted first and in one statement: a hundred tries at once are five.
    """
    columns = contacts.c
    statement = (
        update(contacts)
        .where(
            columns.user_id == contact.user_id,
            columns.id == contact.id,
            columns.code_hash.is_not(None),
            columns.code_expires_at > now,
            columns.code_attempts < MAX_CODE_ATTEMPTS,
        )
        .values(code_attempts=columns.code_attempts + 1)
        .returning(columns.code_hash)
    )
    code_hash: str | None = (await connection.execute(statement)).scalar_one_or_none()
    return code_hash


async def mark_verified(connection: AsyncConnection, user_id: UUID, contact_id: UUID, *, now: datetime) -> None:
    """The address is proved; its code is used up."""
    await connection.execute(
        update(contacts)
        .where(contacts.c.user_id == user_id, contacts.c.id == contact_id)
        .values(verified_at=now, code_hash=None, code_expires_at=None)
    )


async def find_by_start_code(
    connection: AsyncConnection, channel: str, code_hash: str, *, now: datetime
) -> AnyRow | None:
    """The contact that waits for this start code."""
    columns = contacts.c
    statement = select(contacts).where(
        columns.channel == channel, columns.code_hash == code_hash, columns.code_expires_at > now
    )
    return (await connection.execute(statement)).first()


async def link_address(
    connection: AsyncConnection, contact: AnyRow, *, address: str, address_hash: str, hint: str, now: datetime
) -> None:
    """Give a waiting contact the address its code came from. Another contact with the same address makes way."""
    columns = contacts.c
    await connection.execute(
        delete(contacts).where(
            columns.user_id == contact.user_id,
            columns.channel == contact.channel,
            columns.address_hash == address_hash,
            columns.id != contact.id,
        )
    )
    await connection.execute(
        update(contacts)
        .where(columns.user_id == contact.user_id, columns.id == contact.id)
        .values(
            address=address,
            address_hash=address_hash,
            hint=hint,
            verified_at=now,
            code_hash=None,
            code_expires_at=None,
            disabled_at=None,
            disabled_reason=None,
        )
    )
