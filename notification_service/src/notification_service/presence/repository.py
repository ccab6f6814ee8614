"""Last seen, and who may see whom; set-based, never one query per user."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from uuid import UUID

from sqlalchemy import Uuid, select, true
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.db.base import UtcDateTime
from notification_service.db.dialects import insert_into
from notification_service.db.rows import make_rows
from notification_service.identity.models import memberships, users
from notification_service.presence.models import last_seen


async def write_last_seen(connection: AsyncConnection, seen: Collection[tuple[UUID, datetime]]) -> None:
    """Note when users were last seen; an older moment never replaces a newer one, and erased users get no row."""
    # In order of the key: two processes that write the same users do not wait for each other in a circle.
    rows = make_rows(connection, {"user_id": Uuid(), "seen_at": UtcDateTime()}, sorted(seen), "seen")
    known = select(rows.c.user_id, rows.c.seen_at).join(users, users.c.id == rows.c.user_id)
    insertion = insert_into(connection, last_seen).from_select(["user_id", "seen_at"], known.where(true()))
    newer = insertion.on_conflict_do_update(
        index_elements=[last_seen.c.user_id],
        set_={"seen_at": insertion.excluded.seen_at},
        where=last_seen.c.seen_at < insertion.excluded.seen_at,
    )
    await connection.execute(newer)


async def read_last_seen(connection: AsyncConnection, user_ids: Collection[UUID]) -> dict[UUID, datetime]:
    """When those of these users that were ever here were last seen."""
    if not user_ids:
        return {}
    rows = make_rows(connection, {"user_id": Uuid()}, [(each,) for each in user_ids], "wanted")
    found = await connection.execute(
        select(last_seen.c.user_id, last_seen.c.seen_at).join(rows, rows.c.user_id == last_seen.c.user_id)
    )
    return {row.user_id: row.seen_at for row in found}


async def find_acquainted(connection: AsyncConnection, pairs: Collection[tuple[UUID, UUID]]) -> set[tuple[UUID, UUID]]:
    """Those pairs of users of one tenant that share a group."""
    if not pairs:
        return set()
    rows = make_rows(connection, {"viewer": Uuid(), "seen": Uuid()}, list(pairs), "pairs")
    of_viewer, of_seen = memberships.alias("of_viewer"), memberships.alias("of_seen")
    viewer, seen = users.alias("viewer"), users.alias("seen_user")
    found = await connection.execute(
        select(rows.c.viewer, rows.c.seen)
        .join(of_viewer, of_viewer.c.user_id == rows.c.viewer)
        .join(of_seen, (of_seen.c.user_id == rows.c.seen) & (of_seen.c.group_id == of_viewer.c.group_id))
        .join(viewer, viewer.c.id == rows.c.viewer)
        .join(seen, (seen.c.id == rows.c.seen) & (seen.c.tenant == viewer.c.tenant))
        .distinct()
    )
    return {(row.viewer, row.seen) for row in found}


async def find_in_tenant(connection: AsyncConnection, tenant: str, user_ids: Collection[UUID]) -> set[UUID]:
    """Those of these users that belong to the tenant."""
    if not user_ids:
        return set()
    rows = make_rows(connection, {"id": Uuid()}, [(each,) for each in user_ids], "wanted")
    found = await connection.execute(
        select(users.c.id).join(rows, rows.c.id == users.c.id).where(users.c.tenant == tenant)
    )
    return set(found.scalars())
