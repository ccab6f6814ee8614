"""Building the directory of one batch: a fixed number of queries, however many recipients."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.identity import repository
from notification_service.identity.directory import Directory
from shared_contracts.requests import Recipients

Addressing = tuple[str, Recipients]
"""A tenant and the recipients named in it."""


async def look_up(connection: AsyncConnection, wanted: Iterable[Addressing]) -> Directory:
    """Look up everything these recipients name."""
    ids: set[UUID] = set()
    external: set[tuple[str, str]] = set()
    group_ids: set[UUID] = set()
    roles: set[tuple[str, str]] = set()
    for tenant, recipients in wanted:
        own_ids, own_external = repository.split_references(recipients.users, tenant)
        ids |= own_ids
        external |= own_external
        group_ids.update(recipients.groups)
        roles.update((tenant, role) for role in recipients.roles)
    people = await repository.find_people(connection, ids)
    by_external = await repository.find_by_external_id(connection, external)
    group_tenants = await repository.find_groups(connection, group_ids)
    members, member_people = await repository.find_members(connection, group_ids)
    by_role, role_people = await repository.find_by_role(connection, roles)
    external_people = {person.id: person for person in by_external.values()}
    return Directory(
        people={**people, **external_people, **member_people, **role_people},
        external={key: person.id for key, person in by_external.items()},
        group_tenants=group_tenants,
        members=members,
        by_role=by_role,
    )


def find_unknown(
    wanted: Iterable[Addressing], directory: Directory
) -> tuple[set[UUID], set[tuple[str, str]], set[UUID]]:
    """Users by id, users by external id and groups that were named and are not in the directory."""
    ids: set[UUID] = set()
    external: set[tuple[str, str]] = set()
    group_ids: set[UUID] = set()
    for tenant, recipients in wanted:
        own_ids, own_external = repository.split_references(recipients.users, tenant)
        ids |= own_ids - directory.people.keys()
        external |= own_external - directory.external.keys()
        group_ids.update(each for each in recipients.groups if each not in directory.group_tenants)
    return ids, external, group_ids


async def measure_audiences(connection: AsyncConnection, wanted: Sequence[Addressing]) -> list[int]:
    """How many recipients each names at most, groups and roles counted with all their members."""
    group_ids = {group_id for _, recipients in wanted for group_id in recipients.groups}
    roles = {(tenant, role) for tenant, recipients in wanted for role in recipients.roles}
    members = await repository.count_members(connection, group_ids)
    holders = {pair: await repository.count_by_role(connection, *pair) for pair in sorted(roles)}
    return [
        len(recipients.users)
        + sum(members.get(group_id, 0) for group_id in recipients.groups)
        + sum(holders[tenant, role] for role in recipients.roles)
        for tenant, recipients in wanted
    ]


async def count_audiences(connection: AsyncConnection, tenants: Collection[str]) -> dict[str, int]:
    """Active users by tenant."""
    return {tenant: await repository.count_active(connection, tenant) for tenant in tenants}
