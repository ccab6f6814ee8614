"""Putting notifications into digests: one open digest per user, channel and key, whoever comes first opens it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import String, Uuid, delete, select, text, true
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.db.base import UtcDateTime
from notification_service.db.dialects import insert_into
from notification_service.db.rows import RowTypes, make_rows
from notification_service.digests.models import digest_items, digests
from shared_contracts.ids import new_id


@dataclass(frozen=True, slots=True)
class Addition:
    """One notification for one user's digest.

    Attributes:
        due_at: When the digest goes out if this opens it; an open one keeps its time.
    """

    tenant: str
    user_id: UUID
    channel: str
    key: str
    due_at: datetime
    notification_id: UUID | None


async def add_to_digests(connection: AsyncConnection, additions: Sequence[Addition], *, now: datetime) -> None:
    """Add notifications; two statements, however many.

    Args:
        connection: In a write transaction. The open digests are locked until it ends, so that a close that runs at the
            same time has all of this or nothing.
    """
    if not additions:
        return
    types: RowTypes = {
        "id": Uuid(),
        "tenant": String(),
        "user_id": Uuid(),
        "channel": String(),
        "key": String(),
        "due_at": UtcDateTime(),
        "opened_at": UtcDateTime(),
    }
    first: dict[tuple[UUID, str, str], Addition] = {}
    for each in additions:
        known = first.setdefault((each.user_id, each.channel, each.key), each)
        if each.due_at < known.due_at:
            first[each.user_id, each.channel, each.key] = each
    records = [
        (new_id(), each.tenant, each.user_id, each.channel, each.key, each.due_at, now)
        # In one order, as everybody locks them.
        for _, each in sorted(first.items(), key=lambda item: item[0])
    ]
    rows = make_rows(connection, types, records)
    insertion = insert_into(connection, digests).from_select(list(types), select(*rows.c).where(true()))
    columns = digests.c
    statement = insertion.on_conflict_do_update(
        index_elements=[columns.user_id, columns.channel, columns.key],
        index_where=text("closed_at IS NULL"),
        # Changes nothing; but it locks the row, and RETURNING answers only rows that were written.
        set_={"due_at": columns.due_at},
    ).returning(columns.id, columns.user_id, columns.channel, columns.key)
    ids = {(row.user_id, row.channel, row.key): row.id for row in await connection.execute(statement)}
    members = {
        (ids[each.user_id, each.channel, each.key], each.notification_id, now)
        for each in additions
        if each.notification_id is not None
    }
    if members:
        kinds: RowTypes = {"digest_id": Uuid(), "notification_id": Uuid(), "added_at": UtcDateTime()}
        source = make_rows(connection, kinds, sorted(members), "members")
        await connection.execute(
            insert_into(connection, digest_items)
            .from_select(list(kinds), select(*source.c).where(true()))
            .on_conflict_do_nothing()
        )


async def drop_notifications(connection: AsyncConnection, notification_ids: Sequence[UUID]) -> None:
    """Take recalled notifications out of every digest."""
    await connection.execute(delete(digest_items).where(digest_items.c.notification_id.in_(notification_ids)))
