"""What a batch for single users needs to know, in one statement: who they are, what they prefer, and the versions of
their tenants' configuration. Three packages' tables, so the statement stands here (docs/decisions/0076).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import Executable, FromClause, ScalarSelect, Uuid, select
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.db.rows import RowsStatement
from notification_service.event_types.catalog import Version
from notification_service.event_types.entity import EVERY_TENANT
from notification_service.event_types.models import tenant_settings
from notification_service.identity.directory import Directory
from notification_service.identity.lookup import Addressing
from notification_service.identity.models import users
from notification_service.identity.repository import PERSON, find_by_external_id, split_references, to_person
from notification_service.preferences.models import user_preferences


@dataclass(frozen=True, slots=True)
class Known:
    """What was looked up.

    Attributes:
        directory: The people, where they exist.
        documents: Their own preferences; None: they have none. Who is not in it was not asked about.
        versions: Of the configuration, by tenant of these people.
    """

    directory: Directory
    documents: Mapping[UUID, dict[str, Any] | None] = field(default_factory=dict)
    versions: Mapping[str, Version] = field(default_factory=dict)


async def look_up_users(connection: AsyncConnection, wanted: Iterable[Addressing]) -> Known:
    """Look up the users these recipients name; groups and roles are not looked at."""
    ids: set[UUID] = set()
    external: set[tuple[str, str]] = set()
    for tenant, recipients in wanted:
        own_ids, own_external = split_references(recipients.users, tenant)
        ids |= own_ids
        external |= own_external
    rows = await _FIND.execute(connection, [(each,) for each in ids]) if ids else ()
    people = {row.id: to_person(row) for row in rows}
    by_external = await find_by_external_id(connection, external)
    return Known(
        Directory(
            people={**people, **{person.id: person for person in by_external.values()}},
            external={key: person.id for key, person in by_external.items()},
        ),
        documents={row.id: row.document for row in rows},
        versions={row.tenant: (row.version or 0, row.built_in_version or 0) for row in rows},
    )


def _build_find(_dialect_name: str, rows: FromClause) -> Executable:
    document = (
        select(user_preferences.c.document).where(user_preferences.c.user_id == users.c.id).correlate(users)
    ).scalar_subquery()
    return select(
        *PERSON,
        document.label("document"),
        _version_of(users.c.tenant).label("version"),
        _version_of(EVERY_TENANT).label("built_in_version"),
    ).join(rows, users.c.id == rows.c.id)


def _version_of(tenant: Any) -> ScalarSelect[int]:
    found = select(tenant_settings.c.version).where(tenant_settings.c.tenant == tenant)
    return found.correlate(users).scalar_subquery()


_FIND = RowsStatement({"id": Uuid()}, _build_find)
