"""Where personal data lies: each package says how its own is erased and shown; entrypoints put them together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import ColumnElement, Table, delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.db.base import AnyRow


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose data it is.

    Attributes:
        external_id: As applications name the user, where the mirror knew; requests may hold it.
    """

    user_id: UUID
    tenant: str
    external_id: str | None = None

    @property
    def references(self) -> tuple[str, ...]:
        """How a request may name them (contract section 4.2)."""
        return (str(self.user_id), *((f"ext:{self.external_id}",) if self.external_id else ()))

    @property
    def quoted_references(self) -> tuple[str, ...]:
        """The same as JSON spells them; `ext:1` is not found in `ext:12` then."""
        return tuple(orjson.dumps(each).decode() for each in self.references)


Erase = Callable[[AsyncConnection, Subject], Awaitable[Mapping[str, int]]]
"""Deletes or blanks everything, in a write transaction; answers how many rows of each kind. Twice, it finds none."""

Export = Callable[[AsyncConnection, UUID], AsyncIterator[Mapping[str, Any]]]
"""Rows about the user as JSON can hold them, one after another; never a secret."""


@dataclass(frozen=True, slots=True)
class PersonalData:
    """One package's part.

    Attributes:
        name: Of the section in an export.
        tables: All tables it looks after; a test compares with those that name users.
        export: None: what it holds is no news to the user, or is shown by another part.
    """

    name: str
    tables: tuple[Table, ...]
    erase: Erase
    export: Export | None = None


def rows_of(
    name: str,
    table: Table,
    column: ColumnElement[UUID],
    *,
    hidden: tuple[str, ...] = (),
    order_by: ColumnElement[Any] | None = None,
) -> PersonalData:
    """The usual case: a table with a column that says whose row it is.

    Args:
        hidden: Columns that are not shown: secrets, hashes, bookkeeping. The user's own id is never repeated.
    """
    shown = [each for each in table.columns if each is not column and each.name not in hidden]

    async def erase(connection: AsyncConnection, subject: Subject) -> Mapping[str, int]:
        return {str(table.name): (await connection.execute(delete(table).where(column == subject.user_id))).rowcount}

    async def export(connection: AsyncConnection, user_id: UUID) -> AsyncIterator[Mapping[str, Any]]:
        query = select(*shown).where(column == user_id)
        if order_by is not None:
            query = query.order_by(order_by)
        async for row in await connection.stream(query):
            yield as_mapping(row)

    return PersonalData(name, (table,), erase, export)


def as_mapping(row: AnyRow) -> dict[str, Any]:
    """A row as JSON shows it: without what is not set."""
    mapping = row._mapping  # noqa: SLF001 - SQLAlchemy's public name
    return {str(name): value for name, value in mapping.items() if value is not None}


def leave_out(recipients: Mapping[str, Any], references: Sequence[str]) -> dict[str, Any] | None:
    """The recipients of a request without this user; None when nobody is left."""
    users = [each for each in recipients.get("users") or () if each not in references]
    left = {**recipients, "users": users}
    return left if users or left.get("groups") or left.get("roles") or left.get("all") else None
