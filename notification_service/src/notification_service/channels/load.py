"""Everything about deliveries that are to be sent: notification, user, contact, suppression.

Many deliveries of a batch are of few notifications, which are read once: one to a thousand people names them all.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Executable, FromClause, Uuid, and_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.channels.models import deliveries
from notification_service.contacts.addresses import EMAIL, SMS, hash_address
from notification_service.contacts.models import contacts, suppressions
from notification_service.contacts.secrets import SecretBox
from notification_service.db.base import AnyRow
from notification_service.db.rows import RowsStatement
from notification_service.identity.models import users
from notification_service.notifications.entity import Notification
from notification_service.notifications.repository import find_notifications


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


class _Part:
    """The columns of one table out of a joined row."""

    __slots__ = ("_prefix", "_row")

    def __init__(self, row: Any, prefix: str) -> None:
        self._row, self._prefix = row, prefix

    def __getattr__(self, name: str) -> Any:
        return getattr(self._row, f"{self._prefix}{name}")


def _build_find_deliveries(_dialect_name: str, rows: FromClause) -> Executable:
    user = [column.label(f"u_{column.name}") for column in users.columns]
    contact = [column.label(f"c_{column.name}") for column in contacts.columns]
    return select(*deliveries.columns, *user, *contact).select_from(
        deliveries.join(rows, and_(rows.c.user_id == deliveries.c.user_id, rows.c.id == deliveries.c.id))
        .outerjoin(users, users.c.id == deliveries.c.user_id)
        .outerjoin(contacts, and_(contacts.c.user_id == deliveries.c.user_id, contacts.c.id == deliveries.c.contact_id))
    )


_FIND_DELIVERIES = RowsStatement({"user_id": Uuid(), "id": Uuid()}, _build_find_deliveries)


async def load_deliveries(
    connection: AsyncConnection, keys: Collection[tuple[UUID, UUID]], box: SecretBox
) -> dict[UUID, Loaded]:
    """Deliveries by id.

    Args:
        keys: (user, delivery) pairs, at least one.
        box: Decrypts addresses.
    """
    rows = await _FIND_DELIVERIES.execute(connection, list(keys))
    found = await find_notifications(connection, {row.notification_id for row in rows}) if rows else {}
    return {row.id: _read(row, found.get(row.notification_id), box) for row in rows}


def _read(row: Any, notification: Notification | None, box: SecretBox) -> Loaded:
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
