"""The mirror's rows: written from snapshots and from events, many at a time."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Executable, FromClause, Table, Uuid, and_, delete, select, true
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.db.dialects import dialect_insert
from notification_service.db.rows import RowsStatement, RowTypes
from notification_service.identity.models import groups, memberships, users
from shared_contracts.identity_events import (
    GroupDeletedEvent,
    GroupEvent,
    GroupSnapshot,
    IdentityEvent,
    MembersChangedEvent,
    UnknownEvent,
    UserDeletedEvent,
    UserEvent,
    UserSnapshot,
)

_PAGE: Final = 1000

Event = IdentityEvent | UnknownEvent
OnErased = Callable[[AsyncConnection, UUID, str], Awaitable[None]]
"""Is told who was erased, and of which tenant, in the transaction that takes them out of the mirror, and before."""


async def apply_events(connection: AsyncConnection, events: Sequence[Event], *, on_erased: OnErased) -> None:
    """Bring the mirror from before these events to after them.

    Args:
        connection: In a transaction.
        events: In the order of their revisions. Of users or groups that follow each other, the last state counts, so
            that a thousand users that an import creates take one statement.
        on_erased: Called in its turn.
    """
    for kind, alike in itertools.groupby(events, key=type):
        if kind is UserEvent:
            await upsert_users(connection, [event.data for event in alike if isinstance(event, UserEvent)])
        elif kind is GroupEvent:
            await upsert_groups(connection, [event.data for event in alike if isinstance(event, GroupEvent)])
        else:
            for event in alike:
                await _apply(connection, event, on_erased)


async def _apply(connection: AsyncConnection, event: Event, on_erased: OnErased) -> None:
    match event:
        case UserDeletedEvent(data=data, tenant=tenant):
            await on_erased(connection, data.id, tenant)
            await connection.execute(delete(memberships).where(memberships.c.user_id == data.id))
            await connection.execute(delete(users).where(users.c.id == data.id))
        case GroupDeletedEvent(data=data):
            await connection.execute(delete(memberships).where(memberships.c.group_id == data.id))
            await connection.execute(delete(groups).where(groups.c.id == data.id))
        case MembersChangedEvent(data=data):
            await add_members(connection, [(data.group_id, user_id) for user_id in data.added])
            if data.removed:
                # At most 1,000 of one event (docs/identity.md): SQLite takes 32,766 parameters.
                await connection.execute(
                    delete(memberships).where(
                        and_(memberships.c.group_id == data.group_id, memberships.c.user_id.in_(data.removed))
                    )
                )
        case _:
            pass  # sessions, keys and logins do not concern the mirror


async def upsert_users(connection: AsyncConnection, people: Sequence[UserSnapshot]) -> None:
    """Write users as they are now; of one that is named twice, the last state."""
    records = [
        (
            each.id,
            each.tenant,
            each.external_id,
            each.username,
            each.email,
            each.email_verified,
            each.phone,
            each.locale,
            each.timezone,
            list(each.roles),
            each.is_active,
            each.created_at,
        )
        for each in {each.id: each for each in people}.values()
    ]
    await _write(connection, _UPSERT_USERS, records)


async def upsert_groups(connection: AsyncConnection, teams: Sequence[GroupSnapshot]) -> None:
    """The same for groups."""
    records = [(each.id, each.tenant, each.slug, each.name) for each in {each.id: each for each in teams}.values()]
    await _write(connection, _UPSERT_GROUPS, records)


async def add_members(connection: AsyncConnection, pairs: Sequence[tuple[UUID, UUID]]) -> None:
    """Add members, each as group and user, unless they are there."""
    await _write(connection, _ADD_MEMBERS, sorted(set(pairs)))


async def _write(connection: AsyncConnection, statement: RowsStatement, records: Sequence[tuple[Any, ...]]) -> None:
    for start in range(0, len(records), _PAGE):
        await statement.execute(connection, records[start : start + _PAGE])


def _upsert_into(table: Table) -> RowsStatement:
    types: RowTypes = {column.name: column.type for column in table.columns}

    def build(dialect_name: str, rows: FromClause) -> Executable:
        insertion = dialect_insert(dialect_name, table).from_select(list(types), select(*rows.c).where(true()))
        upsert: Executable = insertion.on_conflict_do_update(
            index_elements=[table.c.id], set_={name: insertion.excluded[name] for name in types if name != "id"}
        )
        return upsert

    return RowsStatement(types, build)


def _insert_members(dialect_name: str, rows: FromClause) -> Executable:
    insertion = dialect_insert(dialect_name, memberships).from_select(
        list(_MEMBER_TYPES), select(*rows.c).where(true())
    )
    insert: Executable = insertion.on_conflict_do_nothing()
    return insert


_MEMBER_TYPES: RowTypes = {"group_id": Uuid(), "user_id": Uuid()}
_UPSERT_USERS: Final = _upsert_into(users)
_UPSERT_GROUPS: Final = _upsert_into(groups)
_ADD_MEMBERS: Final = RowsStatement(_MEMBER_TYPES, _insert_members)
