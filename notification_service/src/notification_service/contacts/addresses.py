"""Where a user can be reached on a channel now: usable contacts, else the account's own e-mail address or phone."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from sqlalchemy import String, Uuid, select
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.contacts.models import contacts
from notification_service.db.rows import make_rows
from notification_service.identity.models import users
from shared_contracts.error_codes import Reason

EMAIL: Final = "email"
SMS: Final = "sms"
_OWN: Final = (EMAIL, SMS)


@dataclass(frozen=True, slots=True)
class Target:
    """One address of one user.

    Attributes:
        contact_id: None: the account's own.
    """

    contact_id: UUID | None = None


@dataclass(slots=True)
class Reachable:
    """Addresses of one user on one channel, or why there is none."""

    targets: list[Target] = field(default_factory=list)
    reason: Reason = Reason.NO_ADDRESS


def hash_address(channel: str, address: str) -> str:
    """SHA-256, in hex, by which an address is found again; never shown."""
    return hashlib.sha256(f"{channel}\x00{address}".encode()).hexdigest()


async def find_targets(
    connection: AsyncConnection, wanted: Collection[tuple[UUID, str]], *, require_verified: bool
) -> dict[tuple[UUID, str], Reachable]:
    """Where these (user, channel) pairs can be reached; two statements, however many there are."""
    if not wanted:
        return {}
    found = {pair: Reachable() for pair in wanted}
    rows = make_rows(connection, {"user_id": Uuid(), "channel": String()}, list(wanted))
    columns = contacts.c
    statement = (
        select(columns.user_id, columns.channel, columns.id, columns.verified_at, columns.disabled_at)
        .join(rows, (rows.c.user_id == columns.user_id) & (rows.c.channel == columns.channel))
        .order_by(columns.created_at, columns.id)
    )
    for row in await connection.execute(statement):
        _add_contact(found[row.user_id, row.channel], row, require_verified=require_verified)
    lacking = {pair for pair in wanted if pair[1] in _OWN and not found[pair].targets}
    if lacking:
        accounts = await _find_accounts(connection, {user_id for user_id, _ in lacking})
        for user_id, channel in lacking:
            _add_own(found[user_id, channel], channel, accounts.get(user_id), require_verified=require_verified)
    return found


def _add_contact(reachable: Reachable, row: Any, *, require_verified: bool) -> None:
    if row.disabled_at is not None:
        if not reachable.targets:
            reachable.reason = Reason.ADDRESS_DISABLED
    elif require_verified and row.verified_at is None:
        if not reachable.targets and reachable.reason is Reason.NO_ADDRESS:
            reachable.reason = Reason.ADDRESS_UNVERIFIED
    else:
        reachable.targets.append(Target(row.id))


def _add_own(reachable: Reachable, channel: str, account: Any, *, require_verified: bool) -> None:
    if account is None:
        return
    if channel == SMS and account.phone:
        reachable.targets.append(Target())
    elif channel == EMAIL and account.email:
        if require_verified and not account.email_verified:
            reachable.reason = Reason.ADDRESS_UNVERIFIED
        else:
            reachable.targets.append(Target())


async def _find_accounts(connection: AsyncConnection, user_ids: Iterable[UUID]) -> dict[UUID, Any]:
    rows = make_rows(connection, {"id": Uuid()}, [(each,) for each in user_ids])
    statement = select(users.c.id, users.c.email, users.c.email_verified, users.c.phone).join(
        rows, rows.c.id == users.c.id
    )
    return {row.id: row for row in await connection.execute(statement)}
