"""Everything about deliveries that are to be sent, in one statement: notification, user, contact, suppression."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Uuid, and_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.channels.models import deliveries
from notification_service.contacts.addresses import EMAIL, SMS, hash_address
from notification_service.contacts.models import contacts, suppressions
from notification_service.contacts.secrets import SecretBox
from notification_service.db.base import AnyRow
from notification_service.db.rows import make_rows
from notification_service.identity.models import users
from notification_service.notifications.models import notifications
from notification_service.notifications.repository import to_notification


@dataclass(frozen=True, slots=True)
class Loaded:
    """One delivery with everything about it.

    Attributes:
        delivery: Its row.
        notification: The entity; None when it is gone.
        user, contact: Their rows; None when they are gone, or never were.
        address, secret: Decrypted; None when there is none.
    """

    delivery: AnyRow
    notification: Any
    user: Any
    contact: Any
    address: str | None
    secret: str | None


_NOTIFICATION = [column.label(f"n_{column.name}") for column in notifications.columns]
_USER = [column.label(f"u_{column.name}") for column in users.columns]
_CONTACT = [column.label(f"c_{column.name}") for column in contacts.columns]


class _Part:
    """The columns of one table out of a joined row."""

    __slots__ = ("_prefix", "_row")

    def __init__(self, row: AnyRow, prefix: str) -> None:
        self._row, self._prefix = row._mapping, prefix  # noqa: SLF001 - public, despite its name

    def __getattr__(self, name: str) -> Any:
        return self._row[f"{self._prefix}{name}"]


async def load_deliveries(
    connection: AsyncConnection, keys: Collection[tuple[UUID, UUID]], box: SecretBox
) -> dict[UUID, Loaded]:
    """Deliveries by id.

    Args:
        keys: (user, delivery) pairs, at least one.
        box: Decrypts addresses.
    """
    wanted = make_rows(connection, {"user_id": Uuid(), "id": Uuid()}, list(keys))
    statement = select(*deliveries.columns, *_NOTIFICATION, *_USER, *_CONTACT).select_from(
        deliveries.join(wanted, and_(wanted.c.user_id == deliveries.c.user_id, wanted.c.id == deliveries.c.id))
        .outerjoin(notifications, notifications.c.id == deliveries.c.notification_id)
        .outerjoin(users, users.c.id == deliveries.c.user_id)
        .outerjoin(contacts, and_(contacts.c.user_id == deliveries.c.user_id, contacts.c.id == deliveries.c.contact_id))
    )
    return {row.id: _read(row, box) for row in await connection.execute(statement)}


def _read(row: AnyRow, box: SecretBox) -> Loaded:
    notification = to_notification(_Part(row, "n_")) if row.n_id is not None else None  # type: ignore[arg-type]
    user = _Part(row, "u_") if row.u_id is not None else None
    contact = _Part(row, "c_") if row.c_id is not None else None
    address, secret = None, None
    if contact is not None:
        address = box.open(contact.address)
        secret = box.open(contact.secret) if contact.secret is not None else None
    elif row.contact_id is None and user is not None:
        address = {EMAIL: user.email, SMS: user.phone}.get(row.channel)
    return Loaded(row, notification, user, contact, address or None, secret)


async def find_suppressed(connection: AsyncConnection, loaded: Collection[Loaded]) -> set[UUID]:
    """Deliveries whose address is on the suppression list."""
    by_hash = {
        (each.delivery.tenant, each.delivery.channel, hash_address(each.delivery.channel, each.address)): each
        for each in loaded
        if each.address is not None
    }
    if not by_hash:
        return set()
    columns = suppressions.c
    rows = await connection.execute(
        select(columns.tenant, columns.channel, columns.address_hash).where(
            columns.address_hash.in_({key[2] for key in by_hash})
        )
    )
    hit = {tuple(row) for row in rows}
    return {
        each.delivery.id
        for each in loaded
        if each.address is not None
        and (each.delivery.tenant, each.delivery.channel, hash_address(each.delivery.channel, each.address)) in hit
    }
