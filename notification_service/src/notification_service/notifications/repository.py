"""Reading and writing the table of notifications."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from operator import itemgetter
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Executable, FromClause, Text, Uuid, bindparam, func, select, true, update
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.db.base import AnyRow, UtcDateTime
from notification_service.db.dialects import dialect_insert, insert_into
from notification_service.db.rows import RowsStatement, RowTypes, make_rows
from notification_service.notifications.entity import Notification, Sender
from notification_service.notifications.models import notifications
from notification_service.notifications.search import store_words
from notification_service.words import find_words
from shared_contracts.requests import Channel, Kind, Priority, Recipients

_LATER = ("version", "updated_at", "recalled_at")
ROW_TYPES: RowTypes = {
    column.name: Text() if column.name == "search" else column.type
    for column in notifications.columns
    if column.name not in _LATER
}
_in_order: Final = itemgetter(*ROW_TYPES)


@dataclass(frozen=True, slots=True)
class Stage:
    """How far a stored notification has come."""

    id: UUID
    is_routed: bool
    is_dispatched: bool
    request_hash: str
    sender_id: UUID | None


@dataclass(frozen=True, slots=True)
class Routed:
    """What routing found out about one notification.

    `problems` is a list of `{"recipient": ..., "reason": ...}`.
    """

    recipients_count: int
    problems: list[dict[str, str]]


def _build_find_stages(_dialect_name: str, rows: FromClause) -> Executable:
    columns = notifications.c
    return select(columns.id, columns.routed_at, columns.dispatched_at, columns.request_hash, columns.sender_id).join(
        rows, columns.id == rows.c.id
    )


_ID_TYPES: RowTypes = {"id": Uuid()}
_FIND_STAGES = RowsStatement(_ID_TYPES, _build_find_stages)


async def find_stages(connection: AsyncConnection, ids: Collection[UUID]) -> dict[UUID, Stage]:
    """How far those of these notifications that are stored have come."""
    if not ids:
        return {}
    rows = await _FIND_STAGES.execute(connection, [(each,) for each in ids])
    return {
        row.id: Stage(row.id, row.routed_at is not None, row.dispatched_at is not None, row.request_hash, row.sender_id)
        for row in rows
    }


async def insert_accepted(
    connection: AsyncConnection, accepted: Sequence[Notification], *, relay_after: datetime
) -> set[UUID]:
    """Store notifications that are routed later. Answers the ids that are new; the others were there already."""
    if not accepted:
        return set()
    records = [_record(each, relay_after=max(relay_after, each.deliver_at or relay_after)) for each in accepted]
    rows = make_rows(connection, ROW_TYPES, records)
    statement = (
        insert_into(connection, notifications)
        .from_select(list(ROW_TYPES), select(*store_words(connection.dialect.name, rows)).where(true()))
        .on_conflict_do_nothing(index_elements=[notifications.c.id])
        .returning(notifications.c.id)
    )
    return set((await connection.execute(statement)).scalars())


async def upsert_routed(
    connection: AsyncConnection,
    routed: Sequence[tuple[Notification, Routed]],
    *,
    now: datetime,
    relay_after: datetime,
) -> set[UUID]:
    """Store notifications as routed, whether or not they were accepted before.

    Answers the ids this call routed. One that is missing was routed by somebody else in between: roll back.
    """
    records = make_routed_records(routed, now=now, relay_after=relay_after)
    return {row.id for row in await _UPSERT_ROUTED.execute(connection, records)}


def make_routed_records(
    routed: Sequence[tuple[Notification, Routed]], *, now: datetime, relay_after: datetime
) -> list[tuple[Any, ...]]:
    """The rows for `build_upsert_routed`; their types are `ROW_TYPES`."""
    return [_record(each, relay_after=relay_after, routed_at=now, outcome=outcome) for each, outcome in routed]


_ROUTED = ("routed_at", "relay_after", "recipients_count", "problems", "title", "body", "rendered", "search")


def build_upsert_routed(dialect_name: str, rows: FromClause) -> Any:
    """Stores notifications as routed and returns the ids of those that nobody had routed before."""
    source = select(*store_words(dialect_name, rows)).where(true())
    insertion = dialect_insert(dialect_name, notifications).from_select(list(ROW_TYPES), source)
    new = insertion.excluded
    return insertion.on_conflict_do_update(
        index_elements=[notifications.c.id],
        set_={name: new[name] for name in _ROUTED},
        where=notifications.c.routed_at.is_(None),
    ).returning(notifications.c.id)


_UPSERT_ROUTED = RowsStatement(ROW_TYPES, build_upsert_routed)


async def mark_dispatched(connection: AsyncConnection, ids: Collection[UUID], *, now: datetime) -> None:
    """Note that everything these notifications meant for the broker is confirmed there."""
    await _MARK_DISPATCHED.execute(connection, [(each,) for each in ids], dispatched_at=now)


_MARK_DISPATCHED = RowsStatement(
    _ID_TYPES,
    lambda _, rows: (
        update(notifications)
        .where(notifications.c.id == rows.c.id)
        .values(dispatched_at=bindparam("dispatched_at", type_=UtcDateTime()))
    ),
)


async def claim_for_relay(connection: AsyncConnection, *, now: datetime, hold: timedelta, limit: int) -> list[AnyRow]:
    """Take up to `limit` overdue notifications, oldest first; nobody else gets them for the time of `hold`."""
    columns = notifications.c
    due = (
        select(columns.id)
        .where(columns.dispatched_at.is_(None), columns.relay_after <= now)
        .order_by(columns.relay_after, columns.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    claimed = await connection.execute(
        update(notifications).where(columns.id.in_(due)).values(relay_after=now + hold).returning(*columns)
    )
    return sorted(claimed.all(), key=lambda row: (row.created_at, row.id))


async def measure_outbox(connection: AsyncConnection, *, now: datetime) -> tuple[int, float]:
    """How many notifications wait to be dispatched, and the age in seconds of the oldest that is due."""
    columns = notifications.c
    row = (
        await connection.execute(
            select(func.count(), func.min(columns.created_at)).where(
                columns.dispatched_at.is_(None), (columns.deliver_at.is_(None)) | (columns.deliver_at <= now)
            )
        )
    ).one()
    return row[0], (now - row[1]).total_seconds() if row[1] else 0.0


async def find_tenants(connection: AsyncConnection) -> list[str]:
    """Tenants that ever sent anything: one step along the index for each."""
    found: list[str] = []
    while True:
        query = select(func.min(notifications.c.tenant)).where(notifications.c.tenant > (found[-1] if found else ""))
        following = (await connection.execute(query)).scalar_one_or_none()
        if following is None:
            return found
        found.append(following)


async def find_notifications(connection: AsyncConnection, ids: Collection[UUID]) -> dict[UUID, Notification]:
    """Notifications by id; those that are gone are missing."""
    rows = await _FIND_NOTIFICATIONS.execute(connection, [(each,) for each in ids]) if ids else ()
    return {row.id: to_notification(row) for row in rows}


_FIND_NOTIFICATIONS = RowsStatement(
    _ID_TYPES,
    # Everything but the words it is found by, of which nobody reads more than the database.
    lambda _, rows: select(*(each for each in notifications.columns if each.name != "search")).join(
        rows, notifications.c.id == rows.c.id
    ),
)


def to_notification(row: AnyRow) -> Notification:
    """A stored row as the entity."""
    return Notification(
        id=row.id,
        tenant=row.tenant,
        kind=Kind(row.kind),
        event_type=row.event_type,
        title=row.title,
        body=row.body,
        data=row.data,
        actions=row.actions,
        priority=Priority(row.priority),
        category=row.category,
        tags=row.tags,
        collapse_key=row.collapse_key,
        channels=tuple(Channel(name) for name in row.channels) if row.channels else None,
        recipients=Recipients.model_validate(row.recipients),
        locale=row.locale,
        created_at=row.created_at,
        expires_at=row.expires_at,
        deliver_at=row.deliver_at,
        sender=Sender(row.sender_id, row.sender_name),
        request_hash=row.request_hash,
        version=row.version,
        rendered=row.rendered,
    )


def _record(
    each: Notification, *, relay_after: datetime, routed_at: datetime | None = None, outcome: Routed | None = None
) -> tuple[Any, ...]:
    values: dict[str, Any] = {
        "id": each.id,
        "tenant": each.tenant,
        "sender_id": each.sender.id,
        "sender_name": each.sender.name,
        "request_hash": each.request_hash,
        "kind": str(each.kind),
        "event_type": each.event_type,
        "title": each.title,
        "body": each.body,
        "data": each.data,
        "actions": each.actions,
        "priority": str(each.priority),
        "category": each.category,
        "tags": each.tags,
        "collapse_key": each.collapse_key,
        "channels": [str(channel) for channel in each.channels] if each.channels else None,
        "recipients": each.recipients.model_dump(mode="json"),
        "group_id": each.group_id,
        "locale": each.locale,
        "created_at": each.created_at,
        "expires_at": each.expires_at,
        "deliver_at": each.deliver_at,
        "routed_at": routed_at,
        "dispatched_at": None,
        "relay_after": relay_after,
        "recipients_count": outcome.recipients_count if outcome else None,
        "problems": (outcome.problems or None) if outcome else None,
        "rendered": each.rendered,
        "search": find_words(each.title, each.body),
    }
    row: tuple[Any, ...] = _in_order(values)
    return row
