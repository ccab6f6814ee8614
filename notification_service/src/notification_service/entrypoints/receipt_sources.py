"""Receipts about what happens outside the channels: accepted, acknowledged, read, or given up at the intake."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import orjson
from sqlalchemy import Executable, FromClause, Uuid, select
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.channels.receipts import Receipt
from notification_service.db.base import BigNumber
from notification_service.db.rows import RowsStatement, RowTypes
from notification_service.dead_letters.repository import DeadLetter
from notification_service.mailbox.deliveries import IN_APP
from notification_service.mailbox.models import items, streams
from notification_service.notifications.entity import Notification
from notification_service.notifications.pages import Cursor

_MAX_ACKED: Final = 5_000
"""Receipts of one write: a device that acknowledges a month at once tells of its newest items."""

_TYPES: Final[RowTypes] = {"user_id": Uuid(), "acked_seq": BigNumber}


def accepted(notifications: Sequence[Notification], now: datetime) -> list[Receipt]:
    """Taken and routed."""
    return [Receipt("accepted", each.id, now, each.tenant) for each in notifications]


def given_up(letters: Sequence[DeadLetter], now: datetime) -> list[Receipt]:
    """Refused at the intake, where the sender gave an id to follow it by."""
    found = []
    for each in letters:
        try:
            message_id = UUID(each.message_id or "")
        except ValueError:
            continue
        found.append(Receipt("dead_lettered", message_id, now, each.tenant or "", reason=each.reason))
    return found


def _build_find_newly_acked(_dialect_name: str, rows: FromClause) -> Executable:
    return (
        select(items.c.user_id, items.c.notification_id, streams.c.tenant)
        .select_from(
            rows.join(streams, streams.c.user_id == rows.c.user_id).join(
                items,
                (items.c.user_id == rows.c.user_id)
                & (items.c.seq > streams.c.acked_seq)
                & (items.c.seq <= rows.c.acked_seq),
            )
        )
        .order_by(items.c.seq.desc())
        .limit(_MAX_ACKED)
    )


_FIND_NEWLY_ACKED = RowsStatement(_TYPES, _build_find_newly_acked)


async def find_newly_acked(
    connection: AsyncConnection, cursors: Sequence[tuple[UUID, str, Cursor]], *, now: datetime
) -> list[Receipt]:
    """What these cursors acknowledge for the first time on any device. Ask before they are written."""
    furthest: dict[UUID, int] = {}
    for user_id, _, cursor in cursors:
        furthest[user_id] = max(furthest.get(user_id, 0), cursor.acked_seq)
    records = sorted((user_id, seq) for user_id, seq in furthest.items() if seq)
    if not records:
        return []
    return [
        Receipt("acked", row.notification_id, now, row.tenant, row.user_id, IN_APP, status="acked")
        for row in await _FIND_NEWLY_ACKED.execute(connection, records)
    ]


def read_of(user_id: UUID, body: bytes | None, now: datetime, *, tenant: str) -> list[Receipt]:
    """Items a `state` frame says were read, when it names them; "all" names none."""
    frame = orjson.loads(body) if body is not None else {}
    if frame.get("state") != "read":
        return []
    return [Receipt("read", UUID(each), now, tenant, user_id, IN_APP) for each in frame.get("ids", ())]
