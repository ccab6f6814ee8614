"""Closing digests whose time has come: exactly once, because the row that says it is open is the row that is locked."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Integer, Uuid, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.db.base import AnyRow
from notification_service.db.rows import RowTypes, make_rows
from notification_service.digests.models import digest_items, digests
from notification_service.notifications.entity import Notification, Sender
from notification_service.notifications.models import notifications
from shared_contracts.requests import Channel, Kind, Priority, Recipients

KEY_WEEKLY: Final = "weekly"
SUMMARY_TYPE: Final = "digest.summary"
WEEKLY_TYPE: Final = "digest.weekly"
MAX_ENTRIES: Final = 20
"""Entries a summary shows; the rest is a number. With texts cut it stays below the 16 KiB of a request's data."""
_TITLE_CHARACTERS: Final = 160
_BODY_CHARACTERS: Final = 240


async def claim_due(connection: AsyncConnection, *, now: datetime, limit: int) -> list[AnyRow]:
    """Open digests that are due, locked until the transaction ends; another scheduler passes them over."""
    columns = digests.c
    rows = await connection.execute(
        select(digests)
        .where(columns.closed_at.is_(None), columns.due_at <= now)
        .order_by(columns.due_at, columns.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return list(rows.all())


async def has_due(connection: AsyncConnection, *, now: datetime) -> bool:
    """Whether any digest is due."""
    columns = digests.c
    found = await connection.execute(
        select(columns.id).where(columns.closed_at.is_(None), columns.due_at <= now).limit(1)
    )
    return found.first() is not None


async def read_items(
    connection: AsyncConnection, digest_ids: Sequence[UUID], *, now: datetime
) -> dict[UUID, list[AnyRow]]:
    """What lies in these digests and is still worth telling: not recalled, not expired; in the order it came."""
    asked = make_rows(connection, {"id": Uuid()}, [(each,) for each in digest_ids], "asked")
    columns = notifications.c
    rows = await connection.execute(
        select(
            digest_items.c.digest_id,
            columns.id,
            columns.title,
            columns.body,
            columns.event_type,
            columns.created_at,
        )
        .join(asked, asked.c.id == digest_items.c.digest_id)
        .join(notifications, columns.id == digest_items.c.notification_id)
        .where(columns.recalled_at.is_(None), columns.expires_at.is_(None) | (columns.expires_at > now))
        .order_by(digest_items.c.digest_id, columns.created_at, columns.id)
    )
    found: dict[UUID, list[AnyRow]] = {}
    for row in rows:
        found.setdefault(row.digest_id, []).append(row)
    return found


async def mark_closed(connection: AsyncConnection, told: Sequence[tuple[UUID, int]], *, now: datetime) -> None:
    """Close digests, each with the number of notifications it told of."""
    types: RowTypes = {"id": Uuid(), "told_count": Integer()}
    rows = make_rows(connection, types, list(told))
    await connection.execute(
        update(digests).where(digests.c.id == rows.c.id).values(closed_at=now, told_count=rows.c.told_count)
    )


async def find_open(connection: AsyncConnection, user_id: UUID) -> list[AnyRow]:
    """A user's open digests."""
    rows = await connection.execute(
        select(digests)
        .where(digests.c.user_id == user_id, digests.c.closed_at.is_(None))
        .order_by(digests.c.due_at, digests.c.id)
    )
    return list(rows.all())


def describe_entry(notification_id: UUID, title: str | None, body: str | None, created_at: datetime) -> dict[str, Any]:
    """One line of a summary."""
    return {
        "notification_id": str(notification_id),
        "title": _cut(title or "", _TITLE_CHARACTERS),
        "body": _cut(body or "", _BODY_CHARACTERS),
        "created_at": created_at.isoformat(),
    }


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def make_summary(digest: AnyRow, entries: Sequence[dict[str, Any]], *, count: int, now: datetime) -> Notification:
    """The notification that tells of a digest; its id is the digest's.

    Args:
        entries: At most `MAX_ENTRIES` of them are shown.
        count: How many it tells of.
    """
    shown = list(entries[:MAX_ENTRIES])
    is_weekly = digest.key == KEY_WEEKLY
    return Notification(
        id=digest.id,
        tenant=digest.tenant,
        kind=Kind.EVENT,
        event_type=WEEKLY_TYPE if is_weekly else SUMMARY_TYPE,
        title=None,
        body=None,
        data={"count": count, "left": max(0, count - len(shown)), "entries": shown, "digest": digest.key},
        actions=[],
        priority=Priority.NORMAL,
        category="digests",
        tags=["digest"],
        collapse_key=None,
        channels=(Channel(digest.channel),),
        recipients=Recipients(users=(str(digest.user_id),)),
        locale=None,
        created_at=now,
        expires_at=None,
        deliver_at=None,
        sender=Sender(None, "herald"),
        request_hash="",
    )
