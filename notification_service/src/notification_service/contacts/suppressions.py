"""The suppression list: addresses nothing is sent to, whoever they belong to. A provider's word puts accounts' own
addresses on it, an admin any address.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.contacts.addresses import EMAIL, hash_address
from notification_service.contacts.models import suppressions
from notification_service.db.base import AnyRow
from notification_service.db.dialects import insert_into


@dataclass(frozen=True, slots=True)
class Suppression:
    """One address to suppress.

    Attributes:
        reason: A word for the list: a reason code, or what an admin says.
        user_id: Whose it was when the provider refused it; the entry ends with the account.
    """

    tenant: str
    channel: str
    address: str = field(repr=False)
    reason: str
    user_id: UUID | None = None


async def suppress_addresses(connection: AsyncConnection, wanted: Sequence[Suppression], *, now: datetime) -> None:
    """Put addresses on the list; those that are on it stay as they are."""
    # Sorted: two workers lock rows in the same order.
    rows = sorted(
        (each.tenant, each.channel, hash_address(each.channel, each.address), mask(each), each.reason, each.user_id)
        for each in set(wanted)
    )
    if not rows:
        return
    names = ("tenant", "channel", "address_hash", "hint", "reason", "user_id")
    values = [{**dict(zip(names, row, strict=True)), "created_at": now} for row in rows]
    await connection.execute(insert_into(connection, suppressions).values(values).on_conflict_do_nothing())


async def list_suppressions(
    connection: AsyncConnection, *, tenant: str, channel: str | None, after: tuple[str, str] | None, limit: int
) -> list[AnyRow]:
    """A tenant's list, by channel and hash."""
    columns = suppressions.c
    query = select(suppressions).where(columns.tenant == tenant)
    if channel is not None:
        query = query.where(columns.channel == channel)
    if after is not None:
        query = query.where(tuple_(columns.channel, columns.address_hash) > tuple_(*after))
    return list((await connection.execute(query.order_by(columns.channel, columns.address_hash).limit(limit))).all())


async def allow_address(connection: AsyncConnection, *, tenant: str, channel: str, address_hash: str) -> bool:
    """Take an address off the list; answers whether it was on it."""
    columns = suppressions.c
    found = await connection.execute(
        delete(suppressions).where(
            columns.tenant == tenant, columns.channel == channel, columns.address_hash == address_hash
        )
    )
    return bool(found.rowcount)


def mask(entry: Suppression) -> str:
    """What may be shown of the address: enough to know it again, not enough to write to it."""
    name, at, domain = entry.address.partition("@") if entry.channel == EMAIL else ("", "", "")
    if at:
        return f"{name[:1]}…@{domain}"[:255]
    return f"…{entry.address[-4:]}"
