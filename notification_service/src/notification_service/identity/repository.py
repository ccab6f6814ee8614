"""Looking up users, groups and members in the mirror; set-based, never one query per recipient."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from uuid import UUID

from sqlalchemy import ColumnElement, String, Text, Uuid, and_, cast, false, func, or_, select, true
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.db.base import AnyRow
from notification_service.db.rows import RowsStatement, make_rows
from notification_service.identity.directory import Person
from notification_service.identity.models import groups, memberships, users
from shared_contracts.requests import EXTERNAL_PREFIX, Recipients

PERSON = (
    users.c.id,
    users.c.tenant,
    users.c.is_active,
    users.c.locale,
    users.c.timezone,
    users.c.username,
    users.c.email,
    users.c.roles,
)


def to_person(row: AnyRow) -> Person:
    """A row with the columns `PERSON`."""
    return Person(
        row.id, row.tenant, row.is_active, row.locale, row.timezone, row.username, row.email, tuple(row.roles)
    )


_FIND_PEOPLE = RowsStatement({"id": Uuid()}, lambda _, rows: select(*PERSON).join(rows, users.c.id == rows.c.id))


async def find_people(connection: AsyncConnection, ids: Collection[UUID]) -> dict[UUID, Person]:
    """Those of these users that exist."""
    if not ids:
        return {}
    rows = await _FIND_PEOPLE.execute(connection, [(each,) for each in ids])
    return {row.id: to_person(row) for row in rows}


async def find_by_external_id(
    connection: AsyncConnection, references: Collection[tuple[str, str]]
) -> dict[tuple[str, str], Person]:
    """Users by (tenant, external id)."""
    if not references:
        return {}
    wanted = make_rows(connection, {"tenant": String(), "external_id": String()}, list(references), "wanted")
    rows = await connection.execute(
        select(users.c.external_id, *PERSON).join(
            wanted, (users.c.tenant == wanted.c.tenant) & (users.c.external_id == wanted.c.external_id)
        )
    )
    return {(row.tenant, row.external_id): to_person(row) for row in rows}


async def find_groups(connection: AsyncConnection, ids: Collection[UUID]) -> dict[UUID, str]:
    """The tenants of those of these groups that exist."""
    if not ids:
        return {}
    rows = await connection.execute(select(groups.c.id, groups.c.tenant).where(groups.c.id.in_(ids)))
    return {row.id: row.tenant for row in rows}


async def find_members(
    connection: AsyncConnection, group_ids: Collection[UUID]
) -> tuple[dict[UUID, list[UUID]], dict[UUID, Person]]:
    """Active members of these groups, as ids by group and as people."""
    if not group_ids:
        return {}, {}
    rows = await connection.execute(
        select(memberships.c.group_id, *PERSON)
        .join(users, users.c.id == memberships.c.user_id)
        .where(memberships.c.group_id.in_(group_ids), users.c.is_active)
        .order_by(memberships.c.group_id, users.c.id)
    )
    members: dict[UUID, list[UUID]] = {}
    people: dict[UUID, Person] = {}
    for row in rows:
        members.setdefault(row.group_id, []).append(row.id)
        people[row.id] = to_person(row)
    return members, people


async def find_memberships(
    connection: AsyncConnection, user_ids: Collection[UUID], group_ids: Collection[UUID]
) -> dict[UUID, set[UUID]]:
    """Which of these groups each of these users belongs to."""
    found: dict[UUID, set[UUID]] = {}
    if not user_ids or not group_ids:
        return found
    rows = await connection.execute(
        select(memberships.c.user_id, memberships.c.group_id).where(
            memberships.c.user_id.in_(user_ids), memberships.c.group_id.in_(group_ids)
        )
    )
    for row in rows:
        found.setdefault(row.user_id, set()).add(row.group_id)
    return found


async def find_by_role(
    connection: AsyncConnection, wanted: Collection[tuple[str, str]]
) -> tuple[dict[tuple[str, str], list[UUID]], dict[UUID, Person]]:
    """Active users by (tenant, role), as ids and as people."""
    by_role: dict[tuple[str, str], list[UUID]] = {}
    people: dict[UUID, Person] = {}
    roles_by_tenant: dict[str, set[str]] = {}
    for tenant, role in wanted:
        roles_by_tenant.setdefault(tenant, set()).add(role)
    for tenant, roles in roles_by_tenant.items():
        rows = await connection.execute(
            select(*PERSON)
            .where(users.c.tenant == tenant, users.c.is_active)
            # Both databases write a JSON list of words alike; the exact match follows below.
            .where(or_(*(cast(users.c.roles, Text).contains(f'"{role}"', autoescape=True) for role in roles)))
            .order_by(users.c.id)
        )
        for row in rows:
            for role in roles.intersection(row.roles):
                by_role.setdefault((tenant, role), []).append(row.id)
                people[row.id] = to_person(row)
    return by_role, people


async def count_members(connection: AsyncConnection, group_ids: Collection[UUID]) -> dict[UUID, int]:
    """How many members each of these groups has."""
    if not group_ids:
        return {}
    rows = await connection.execute(
        select(memberships.c.group_id, func.count().label("number"))
        .where(memberships.c.group_id.in_(group_ids))
        .group_by(memberships.c.group_id)
    )
    return {row.group_id: row.number for row in rows}


async def count_by_role(connection: AsyncConnection, tenant: str, role: str) -> int:
    """How many active users have a role."""
    found = await connection.execute(
        select(func.count()).select_from(users).where(users.c.tenant == tenant, users.c.is_active, _has_role(role))
    )
    return found.scalar_one()


def _has_role(role: str) -> ColumnElement[bool]:
    # Both databases write a JSON list of words alike.
    return cast(users.c.roles, Text).contains(f'"{role}"', autoescape=True)


def _among(tenant: str, recipients: Recipients) -> ColumnElement[bool]:
    ids, external = split_references(recipients.users, tenant)
    conditions: list[ColumnElement[bool]] = [_has_role(role) for role in recipients.roles]
    if ids:
        conditions.append(users.c.id.in_(ids))
    if external:
        conditions.append(users.c.external_id.in_({external_id for _, external_id in external}))
    if recipients.groups:
        members = select(memberships.c.user_id).where(memberships.c.group_id.in_(recipients.groups))
        conditions.append(users.c.id.in_(members))
    if recipients.all:
        conditions.append(true())
    return and_(users.c.tenant == tenant, users.c.is_active, or_(false(), *conditions))


async def count_audience(connection: AsyncConnection, tenant: str, recipients: Recipients) -> int:
    """How many people these recipients are now, each counted once."""
    found = await connection.execute(select(func.count()).select_from(users).where(_among(tenant, recipients)))
    return found.scalar_one()


async def read_audience(
    connection: AsyncConnection, tenant: str, recipients: Recipients, *, after: UUID | None, limit: int
) -> list[Person]:
    """The next piece of an audience as it is now, in the order of the ids."""
    query = select(*PERSON).where(_among(tenant, recipients)).order_by(users.c.id).limit(limit)
    if after is not None:
        query = query.where(users.c.id > after)
    return [to_person(row) for row in await connection.execute(query)]


async def count_active(connection: AsyncConnection, tenant: str) -> int:
    """How many people a broadcast reaches."""
    found = await connection.execute(
        select(func.count()).select_from(users).where(users.c.tenant == tenant, users.c.is_active)
    )
    return found.scalar_one()


async def find_groups_of(connection: AsyncConnection, user_ids: Collection[UUID]) -> dict[UUID, set[UUID]]:
    """Group ids by user."""
    if not user_ids:
        return {}
    wanted = make_rows(connection, {"id": Uuid()}, [(each,) for each in user_ids], "wanted")
    rows = await connection.execute(
        select(memberships.c.user_id, memberships.c.group_id).join(wanted, memberships.c.user_id == wanted.c.id)
    )
    found: dict[UUID, set[UUID]] = {}
    for row in rows:
        found.setdefault(row.user_id, set()).add(row.group_id)
    return found


def split_references(references: Iterable[str], tenant: str) -> tuple[set[UUID], set[tuple[str, str]]]:
    """User references of one tenant as ids and as (tenant, external id) pairs."""
    ids: set[UUID] = set()
    external: set[tuple[str, str]] = set()
    for reference in references:
        if reference.startswith(EXTERNAL_PREFIX):
            external.add((tenant, reference.removeprefix(EXTERNAL_PREFIX)))
        else:
            ids.add(UUID(reference))
    return ids, external
