"""The inbox: a user's items and the broadcasts as one list, the newest first; pages stay put while new items arrive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

from sqlalchemy import ColumnElement, Select, String, Uuid, and_, cast, func, literal, null, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.db.base import AnyRow, BigNumber
from notification_service.mailbox.changes import read_contents
from notification_service.mailbox.counting import COUNT_COLUMNS, add_broadcasts, find_floors, read_floor
from notification_service.mailbox.live_broadcasts import LiveBroadcasts
from notification_service.mailbox.models import broadcast_states, broadcasts, items, streams
from notification_service.notifications.frames import describe_flags
from notification_service.notifications.kept import Counts
from notification_service.notifications.models import notifications
from notification_service.notifications.search import where_text

State = Literal["unread", "read", "seen", "unseen", "archived", "snoozed"]
_FLAGS: Final = ("read_at", "seen_at", "archived_at", "snoozed_until", "deleted_at", "pinned_at")


@dataclass(frozen=True, slots=True)
class InboxFilter:
    """Which items. Without a state: all but archived and snoozed ones."""

    state: State | None = None
    event_type: str | None = None
    category: str | None = None
    tag: str | None = None
    priority: str | None = None
    group_id: UUID | None = None
    pinned: bool | None = None
    since: datetime | None = None
    until: datetime | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True)
class InboxCursor:
    """Where a page ended: everything before these numbers comes next."""

    before_seq: int
    before_broadcast: int


@dataclass(frozen=True, slots=True)
class InboxPage:
    """Items as clients see them, and where the next page begins."""

    items: list[dict[str, Any]]
    next: InboxCursor | None


async def list_inbox(
    connection: AsyncConnection,
    *,
    user_id: UUID,
    tenant: str,
    wanted: InboxFilter,
    limit: int,
    cursor: InboxCursor | None,
    now: datetime,
) -> InboxPage:
    """One page, the newest first. Two index scans of `limit` rows at most, however long the inbox."""
    floor = await read_floor(connection, user_id, tenant)
    own = await _read(connection, _select_items(connection, user_id, wanted, cursor, now), limit)
    shared = await _read(
        connection, _select_broadcasts(connection, user_id, tenant, floor, wanted=wanted, cursor=cursor, now=now), limit
    )
    chosen: list[AnyRow] = []
    own_left, shared_left = own[::-1], shared[::-1]
    while (own_left or shared_left) and len(chosen) < limit:
        use_own = bool(own_left) and (not shared_left or own_left[-1].created_at >= shared_left[-1].created_at)
        chosen.append((own_left if use_own else shared_left).pop())
    contents = await read_contents(connection, {(row.notification_id, row.variant) for row in chosen})
    page = [describe_item(row, contents[row.notification_id, row.variant]) for row in chosen]
    if not own_left and not shared_left:
        return InboxPage(page, None)
    start = cursor or InboxCursor(_END, _END)
    return InboxPage(
        page,
        InboxCursor(
            min((row.seq for row in chosen if row.seq is not None), default=start.before_seq),
            min((row.broadcast_seq for row in chosen if row.seq is None), default=start.before_broadcast),
        ),
    )


_END: Final = 2**62


async def find_item(
    connection: AsyncConnection, *, user_id: UUID, tenant: str, notification_id: UUID, now: datetime
) -> dict[str, Any] | None:
    """One item of this user, whatever its state; None when there is none, or it was removed."""
    floor = await read_floor(connection, user_id, tenant)
    everything = InboxFilter()
    for query in (
        _select_items(connection, user_id, everything, None, now, only=notification_id),
        _select_broadcasts(
            connection, user_id, tenant, floor, wanted=everything, cursor=None, now=now, only=notification_id
        ),
    ):
        row = (await connection.execute(query)).first()
        if row is not None:
            contents = await read_contents(connection, [(notification_id, row.variant)])
            return describe_item(row, contents[notification_id, row.variant])
    return None


async def read_counts(
    connection: AsyncConnection, *, user_id: UUID, tenant: str, live: LiveBroadcasts, now: datetime
) -> Counts:
    """The counts kept for this user: one row, however many items."""
    found = (await connection.execute(select(*COUNT_COLUMNS).where(streams.c.user_id == user_id))).one_or_none()
    lists = await live.load(connection, {tenant})
    if found is None:
        # Nothing ever arrived and no device connected: only broadcasts can count, from the user's beginning on.
        alive = lists[tenant].count_after(await read_floor(connection, user_id, tenant), now)
        return Counts(alive, alive, alive)
    floor = found.broadcast_floor
    if floor is None:
        floor = (await find_floors(connection, [user_id])).get(user_id, 0)
    return add_broadcasts(found, floor, lists[tenant], now)


async def count_filtered(
    connection: AsyncConnection, *, user_id: UUID, tenant: str, wanted: InboxFilter, now: datetime
) -> int:
    """How many items a filter finds; counted, up to 10,000."""
    floor = await read_floor(connection, user_id, tenant)
    total = 0
    for query in (
        _select_items(connection, user_id, wanted, None, now),
        _select_broadcasts(connection, user_id, tenant, floor, wanted=wanted, cursor=None, now=now),
    ):
        rows = query.order_by(None).limit(10_000).subquery()
        total += (await connection.execute(select(func.count()).select_from(rows))).scalar_one()
    return total


async def find_ids(
    connection: AsyncConnection, *, user_id: UUID, tenant: str, wanted: InboxFilter, limit: int, now: datetime
) -> list[UUID]:
    """Ids of the items a filter finds, the newest first, `limit` at most."""
    floor = await read_floor(connection, user_id, tenant)
    own = await _read(connection, _select_items(connection, user_id, wanted, None, now), limit - 1)
    shared = await _read(
        connection,
        _select_broadcasts(connection, user_id, tenant, floor, wanted=wanted, cursor=None, now=now),
        limit - 1,
    )
    return [row.notification_id for row in (*own, *shared)][:limit]


def describe_item(row: AnyRow, content: dict[str, Any]) -> dict[str, Any]:
    """An item as the REST API shows it: the fields of a `notification` frame, flat, plus what only lists tell."""
    return {
        **content,
        "seq": row.seq,
        "state": describe_flags(row),
        "snoozed_until": row.snoozed_until,
        "pinned_at": row.pinned_at,
        **describe_flags(row),
    }


async def _read(connection: AsyncConnection, query: Select[Any], limit: int) -> list[AnyRow]:
    return list((await connection.execute(query.limit(limit + 1))).all())


def _select_items(
    connection: AsyncConnection,
    user_id: UUID,
    wanted: InboxFilter,
    cursor: InboxCursor | None,
    now: datetime,
    *,
    only: UUID | None = None,
) -> Select[Any]:
    query = (
        select(
            items.c.seq,
            null().label("broadcast_seq"),
            items.c.notification_id,
            items.c.created_at,
            items.c.variant,
            *(items.c[name] for name in _FLAGS),
        )
        .where(items.c.user_id == user_id, _is_there(items, items.c.expires_at, now))
        .order_by(items.c.seq.desc())
    )
    if only is not None:
        return query.where(items.c.notification_id == only)
    query = query.where(*_state_conditions(items, wanted), *_time_conditions(items.c.created_at, wanted))
    if cursor is not None:
        query = query.where(items.c.seq < cursor.before_seq)
    return _where_content(connection, query, items.c.notification_id, wanted, items.c.variant)


def _select_broadcasts(
    connection: AsyncConnection,
    user_id: UUID,
    tenant: str,
    floor: int,
    *,
    wanted: InboxFilter,
    cursor: InboxCursor | None,
    now: datetime,
    only: UUID | None = None,
) -> Select[Any]:
    own = and_(
        broadcast_states.c.notification_id == broadcasts.c.notification_id,
        broadcast_states.c.user_id == literal(user_id, Uuid()),
    )
    query = (
        select(
            null().label("seq"),
            broadcasts.c.seq.label("broadcast_seq"),
            broadcasts.c.notification_id,
            broadcasts.c.created_at,
            cast(null(), String).label("variant"),
            *(broadcast_states.c[name] for name in _FLAGS),
        )
        .select_from(broadcasts.outerjoin(broadcast_states, own))
        .where(
            broadcasts.c.tenant == tenant,
            broadcasts.c.seq > literal(floor, BigNumber),
            broadcasts.c.removed_at.is_(None),
            _is_there(broadcast_states, broadcasts.c.expires_at, now),
        )
        .order_by(broadcasts.c.seq.desc())
    )
    if only is not None:
        return query.where(broadcasts.c.notification_id == only)
    query = query.where(
        *_state_conditions(broadcast_states, wanted), *_time_conditions(broadcasts.c.created_at, wanted)
    )
    if cursor is not None:
        query = query.where(broadcasts.c.seq < cursor.before_broadcast)
    return _where_content(connection, query, broadcasts.c.notification_id, wanted)


def _is_there(table: Any, expires_at: ColumnElement[Any], now: datetime) -> ColumnElement[bool]:
    return and_(table.c.deleted_at.is_(None), or_(expires_at.is_(None), expires_at > now))


def _state_conditions(table: Any, wanted: InboxFilter) -> Sequence[ColumnElement[bool]]:
    columns = table.c
    pinned = []
    if wanted.pinned is not None:
        pinned.append(columns.pinned_at.is_not(None) if wanted.pinned else columns.pinned_at.is_(None))
    in_list = [columns.archived_at.is_(None), columns.snoozed_until.is_(None), *pinned]
    match wanted.state:
        case "archived":
            return [columns.archived_at.is_not(None), *pinned]
        case "snoozed":
            return [columns.archived_at.is_(None), columns.snoozed_until.is_not(None), *pinned]
        case "unread":
            return [*in_list, columns.read_at.is_(None)]
        case "read":
            return [*in_list, columns.read_at.is_not(None)]
        case "unseen":
            return [*in_list, columns.seen_at.is_(None)]
        case "seen":
            return [*in_list, columns.seen_at.is_not(None)]
    return in_list


def _time_conditions(created_at: ColumnElement[Any], wanted: InboxFilter) -> list[ColumnElement[bool]]:
    conditions = []
    if wanted.since is not None:
        conditions.append(created_at >= wanted.since)
    if wanted.until is not None:
        conditions.append(created_at < wanted.until)
    return conditions


def _where_content(
    connection: AsyncConnection,
    query: Select[Any],
    notification_id: ColumnElement[Any],
    wanted: InboxFilter,
    variant: ColumnElement[Any] | None = None,
) -> Select[Any]:
    """Join the notifications only when a filter needs what is in them."""
    columns = notifications.c
    conditions: list[ColumnElement[bool]] = []
    for value, column in (
        (wanted.event_type, columns.event_type),
        (wanted.category, columns.category),
        (wanted.priority, columns.priority),
        (wanted.group_id, columns.group_id),
    ):
        if value is not None:
            conditions.append(column == value)
    if wanted.tag is not None:
        # Both databases write a JSON list of words alike; quotes keep `ship` from finding `shipping`.
        conditions.append(cast(columns.tags, String).contains(f'"{wanted.tag}"', autoescape=True))
    if not conditions and wanted.text is None:
        return query
    query = query.join(notifications, columns.id == notification_id).where(*conditions)
    return query if wanted.text is None else where_text(connection, query, text=wanted.text, variant=variant)
