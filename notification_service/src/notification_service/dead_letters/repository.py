"""Reading and writing dead letters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import ColumnElement, delete, func, insert, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.db.base import AnyRow
from notification_service.dead_letters.models import dead_letters
from shared_contracts.error_codes import Reason
from shared_contracts.ids import new_id
from shared_contracts.requests import MAX_REQUEST_BYTES
from shared_contracts.topology import channel_queue

MAX_PAYLOAD_BYTES: Final = MAX_REQUEST_BYTES
"""Longer payloads are kept up to here, marked as truncated, and cannot be replayed."""

_MAX_DETAIL_LENGTH: Final = 2000


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One message given up.

    Attributes:
        detail: A sentence for the person who looks at it.
        payload: The message's body as it came.
        exchange, routing_key: Where it came in, and where a replay goes. Empty exchange: it came over REST.
    """

    reason: Reason
    detail: str
    payload: bytes
    exchange: str
    routing_key: str
    message_id: str | None = None
    source: str | None = None
    tenant: str | None = None
    attempts: int = 1


async def insert_dead_letters(
    connection: AsyncConnection, letters: Sequence[DeadLetter], *, now: datetime
) -> list[UUID]:
    """Store dead letters; answers their ids."""
    if not letters:
        return []
    rows = [
        {
            "id": new_id(),
            "tenant": each.tenant,
            "reason": str(each.reason),
            "detail": each.detail[:_MAX_DETAIL_LENGTH],
            "source": _clip(each.source),
            "exchange": _clip(each.exchange),
            "routing_key": _clip(each.routing_key),
            "message_id": _clip(each.message_id),
            "payload": each.payload[:MAX_PAYLOAD_BYTES],
            "is_truncated": len(each.payload) > MAX_PAYLOAD_BYTES,
            "attempts": each.attempts,
            "created_at": now,
        }
        for each in letters
    ]
    await connection.execute(insert(dead_letters), rows)
    return [row["id"] for row in rows]  # type: ignore[misc]  # the dict's values are typed as object


def _clip(value: str | None) -> str | None:
    # Publishers choose these; PostgreSQL cannot hold NUL.
    return value.replace("\x00", "\ufffd")[:255] if value is not None else None


@dataclass(frozen=True, slots=True)
class LetterFilter:
    """Which dead letters; None and empty: all.

    Attributes:
        tenant: Its own, and those of messages that could not be read far enough to have one.
        channel: Deliveries over it that were given up.
        message_id: Of the message, or of the notification a delivery belongs to.
        is_replayed: False: those that still wait for somebody.
    """

    tenant: str
    reason: str | None = None
    channel: str | None = None
    source: str | None = None
    message_id: str | None = None
    is_replayed: bool | None = None
    since: datetime | None = None
    until: datetime | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """What a row must hold."""
        columns = dead_letters.c
        found: list[ColumnElement[bool]] = [(columns.tenant == self.tenant) | columns.tenant.is_(None)]
        if self.channel is not None:
            found.append((columns.exchange == "") & (columns.routing_key == channel_queue(self.channel).name))
        if self.is_replayed is not None:
            found.append(columns.replayed_at.is_not(None) if self.is_replayed else columns.replayed_at.is_(None))
        if self.since is not None:
            found.append(columns.created_at >= self.since)
        if self.until is not None:
            found.append(columns.created_at < self.until)
        given = ((columns.reason, self.reason), (columns.source, self.source), (columns.message_id, self.message_id))
        return [*found, *(column == value for column, value in given if value is not None)]


async def list_dead_letters(
    connection: AsyncConnection, wanted: LetterFilter, *, limit: int, before: tuple[datetime, UUID] | None = None
) -> list[AnyRow]:
    """Dead letters, the newest first; one more than `limit` when there are more."""
    columns = dead_letters.c
    query = select(dead_letters).where(*wanted.conditions())
    if before is not None:
        query = query.where(tuple_(columns.created_at, columns.id) < tuple_(*before))
    query = query.order_by(columns.created_at.desc(), columns.id.desc()).limit(limit + 1)
    return list((await connection.execute(query)).all())


async def find_replayable(connection: AsyncConnection, wanted: LetterFilter, *, limit: int) -> list[UUID]:
    """Ids of dead letters that can be replayed, the oldest first: what waited longest goes first."""
    columns = dead_letters.c
    query = select(columns.id).where(
        *wanted.conditions(), columns.replayed_at.is_(None), columns.is_truncated.is_(False)
    )
    rows = await connection.execute(query.order_by(columns.created_at, columns.id).limit(limit))
    return list(rows.scalars())


async def count_waiting(connection: AsyncConnection) -> dict[str, int]:
    """How many were neither replayed nor discarded, by reason."""
    columns = dead_letters.c
    rows = await connection.execute(
        select(columns.reason, func.count().label("number"))
        .where(columns.replayed_at.is_(None))
        .group_by(columns.reason)
    )
    return {row.reason: row.number for row in rows}


async def find_dead_letter(connection: AsyncConnection, letter_id: UUID) -> AnyRow | None:
    """One dead letter."""
    return (await connection.execute(select(dead_letters).where(dead_letters.c.id == letter_id))).one_or_none()


async def claim_for_replay(
    connection: AsyncConnection, ids: Sequence[UUID], *, tenant: str, now: datetime
) -> list[AnyRow]:
    """Mark these as replayed and answer them; those that were already, cannot be, or are foreign, are left out."""
    columns = dead_letters.c
    claimed = await connection.execute(
        update(dead_letters)
        .where(
            columns.id.in_(ids),
            (columns.tenant == tenant) | columns.tenant.is_(None),
            columns.replayed_at.is_(None),
            columns.is_truncated.is_(False),
        )
        .values(replayed_at=now)
        .returning(*columns)
    )
    return list(claimed.all())


async def release_replay(connection: AsyncConnection, ids: Sequence[UUID]) -> None:
    """Take the mark back: it was not replayed after all."""
    if not ids:
        return
    await connection.execute(update(dead_letters).where(dead_letters.c.id.in_(ids)).values(replayed_at=None))


async def delete_dead_letter(connection: AsyncConnection, letter_id: UUID) -> bool:
    """Discard one; answers whether it was there."""
    return bool((await connection.execute(delete(dead_letters).where(dead_letters.c.id == letter_id))).rowcount)
