"""What changed since a position: index scans in the order of the numbers, for many users in one query (PostgreSQL)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import (
    ColumnElement,
    Executable,
    FromClause,
    Integer,
    Select,
    String,
    Uuid,
    and_,
    cast,
    lateral,
    literal,
    null,
    select,
    true,
    union_all,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.db.base import AnyRow, BigNumber, UtcDateTime
from notification_service.db.rows import RowsStatement, RowTypes, make_rows
from notification_service.mailbox.counting import COUNT_COLUMNS, add_broadcasts
from notification_service.mailbox.live_broadcasts import LiveBroadcasts
from notification_service.mailbox.models import (
    broadcast_states,
    broadcast_streams,
    broadcasts,
    items,
    stream_marks,
    streams,
)
from notification_service.mailbox.paging import CHANGE_LIMIT, Head, Wanted, make_page
from notification_service.notifications.entity import Sender, describe_content
from notification_service.notifications.kept import Counts
from notification_service.notifications.models import notification_contents, notifications
from notification_service.notifications.pages import UPDATED_LABEL, Page

_FLAGS = ("read_at", "seen_at", "archived_at", "deleted_at", "last_change")


async def read_changes(
    connection: AsyncConnection, wanted: Sequence[Wanted], *, live: LiveBroadcasts, now: datetime
) -> dict[UUID, Page]:
    """Answer every question, each user appearing once. Users without a stream get an empty page.

    Five queries on PostgreSQL, however many users ask.
    """
    # The heads first: a frame stored in between is then beyond the top and fetched the next time, never skipped.
    heads = await _read_heads(connection, wanted, live=live, now=now)
    changes = await _read_rows(connection, wanted, _CHANGES)
    entries = await _read_rows(connection, wanted, _LOG)
    shown = {
        (row.notification_id, row.variant)
        for rows in changes.values()
        for row in rows
        if row.part == "new" or row.last_change == UPDATED_LABEL
    }
    shown |= {(row.about or row.notification_id, None) for rows in entries.values() for row in rows}
    contents = {key: orjson.dumps(content) for key, content in (await read_contents(connection, shown)).items()}
    return {
        each.user_id: make_page(
            each,
            heads[each.user_id],
            changes=changes.get(each.user_id, []),
            log=entries.get(each.user_id, []),
            contents=contents,
            now=now,
        )
        for each in wanted
    }


# Not the recipients: a request may name thousands, who are nobody else's business.
_SHOWN = [
    notifications.c[name]
    for name in (
        *("id", "kind", "event_type", "title", "body", "data", "actions", "priority", "category", "tags", "group_id"),
        *("sender_id", "sender_name", "created_at", "expires_at"),
    )
]


_READ_SHOWN = RowsStatement({"id": Uuid()}, lambda _, rows: select(*_SHOWN).join(rows, notifications.c.id == rows.c.id))


async def read_contents(
    connection: AsyncConnection, wanted: Collection[tuple[UUID, str | None]]
) -> dict[tuple[UUID, str | None], dict[str, Any]]:
    """What clients see of these notifications, by id and variant; built once for all recipients."""
    if not wanted:
        return {}
    rows = await _READ_SHOWN.execute(connection, [(each,) for each in {each for each, _ in wanted}])
    found = {row.id: describe_content(row, Sender(row.sender_id, row.sender_name)) for row in rows}
    variants = [(each, variant) for each, variant in wanted if variant is not None]
    texts = await read_texts(connection, variants) if variants else {}
    contents: dict[tuple[UUID, str | None], dict[str, Any]] = {}
    for each, variant in wanted:
        if each in found:
            own = texts.get((each, variant or ""))
            contents[each, variant] = {**found[each], "title": own[0], "body": own[1]} if own else found[each]
    return contents


async def read_texts(
    connection: AsyncConnection, variants: Collection[tuple[UUID, str]]
) -> dict[tuple[UUID, str], tuple[str | None, str | None]]:
    """Title and body of these variants."""
    columns = notification_contents.c
    asked = make_rows(connection, {"id": Uuid(), "variant": String()}, list(variants), "asked_texts")
    rows = await connection.execute(
        select(notification_contents).join(
            asked, and_(columns.notification_id == asked.c.id, columns.variant == asked.c.variant)
        )
    )
    return {(row.notification_id, row.variant): (row.title, row.body) for row in rows}


_READ_HEADS = RowsStatement(
    {"user_id": Uuid()},
    lambda _, rows: select(streams.c.user_id, streams.c.top_seq, *COUNT_COLUMNS).join(
        rows, streams.c.user_id == rows.c.user_id
    ),
)


async def _read_heads(
    connection: AsyncConnection, wanted: Sequence[Wanted], *, live: LiveBroadcasts, now: datetime
) -> dict[UUID, Head]:
    rows = await _READ_HEADS.execute(connection, [(each.user_id,) for each in wanted])
    by_user = {row.user_id: row for row in rows}
    tenants = {each.tenant for each in wanted}
    tops = await read_broadcast_tops(connection, tenants)
    lists = await live.load(connection, tenants)
    heads = {}
    for each in wanted:
        row = by_user.get(each.user_id)
        if row is None:
            heads[each.user_id] = Head(0, tops.get(each.tenant, 0), Counts(0, 0, 0))
        else:
            counts = add_broadcasts(row, row.broadcast_floor or 0, lists[each.tenant], now)
            heads[each.user_id] = Head(row.top_seq, tops.get(each.tenant, 0), counts)
    return heads


async def read_broadcast_tops(connection: AsyncConnection, tenants: Collection[str]) -> dict[str, int]:
    """The number of the last broadcast of each tenant that ever had one."""
    found = await connection.execute(
        select(broadcast_streams.c.tenant, broadcast_streams.c.top_seq).where(
            broadcast_streams.c.tenant.in_(sorted(tenants))
        )
    )
    return {row.tenant: row.top_seq for row in found}


@dataclass(frozen=True, slots=True)
class _Asked:
    """One question's parts as they stand in the statement: columns of the rows asked for, or (SQLite) plain values."""

    user_id: ColumnElement[Any]
    tenant: ColumnElement[Any]
    after_seq: ColumnElement[Any]
    after_broadcast: ColumnElement[Any]
    limit: Any


_Query = Callable[[_Asked], Sequence[Select[Any]]]
"""Selects of the same columns, for one question; what they find is put together."""


_ASKED_TYPES: RowTypes = {
    "user_id": Uuid(),
    "tenant": String(),
    "after_seq": BigNumber,
    "after_broadcast": BigNumber,
    "row_limit": Integer(),
}


def _build_read(_dialect_name: str, rows: FromClause, query: _Query) -> Executable:
    asked = _Asked(rows.c.user_id, rows.c.tenant, rows.c.after_seq, rows.c.after_broadcast, rows.c.row_limit)
    laterals = [lateral(part, f"part_{index}") for index, part in enumerate(query(asked))]
    return union_all(
        *(
            select(rows.c.user_id.label("asked_user_id"), *each.c).select_from(rows.join(each, true()))
            for each in laterals
        )
    )


async def _read_rows(
    connection: AsyncConnection, wanted: Sequence[Wanted], reading: _Reading
) -> dict[UUID, list[AnyRow]]:
    found: dict[UUID, list[AnyRow]] = {}
    if connection.dialect.name == "sqlite":
        # SQLite knows no LATERAL: one query per user, in the same process and transaction.
        for each in wanted:
            asked = _Asked(
                literal(each.user_id, Uuid()),
                literal(each.tenant, String()),
                literal(each.after_seq, BigNumber),
                literal(each.after_broadcast, BigNumber),
                each.limit + 1,
            )
            parts = [select(part.subquery(f"part_{index}")) for index, part in enumerate(reading.query(asked))]
            found[each.user_id] = list((await connection.execute(union_all(*parts))).all())
        return found
    records = [(each.user_id, each.tenant, each.after_seq, each.after_broadcast, each.limit + 1) for each in wanted]
    for row in await reading.statement.execute(connection, records):
        found.setdefault(row.asked_user_id, []).append(row)
    return found


def _select_changes(asked: _Asked) -> Sequence[Select[Any]]:
    # Four scans, each along an index and cut at its limit; `make_page` merges them. Arrivals are found by the primary
    # key, later changes by a small partial index.
    item = [
        items.c.changed_seq,
        items.c.seq,
        items.c.notification_id,
        items.c.created_at,
        items.c.expires_at,
        items.c.variant,
    ]
    of_user = items.c.user_id == asked.user_id
    new = (
        select(literal("new").label("part"), *item, *_flags_of(items))
        .where(of_user, items.c.seq > asked.after_seq)
        .order_by(items.c.seq)
        .limit(asked.limit)
    )
    changed = (
        select(literal("changed").label("part"), *item, *_flags_of(items))
        .where(of_user, items.c.changed_seq > asked.after_seq, items.c.changed_seq > items.c.seq)
        .order_by(items.c.changed_seq)
        .limit(CHANGE_LIMIT)
    )
    states = broadcast_states.c
    of_broadcasts = (
        select(
            literal("broadcast_state").label("part"),
            states.changed_seq,
            _nothing(BigNumber, "seq"),
            states.notification_id,
            _nothing(UtcDateTime(), "created_at"),
            _nothing(UtcDateTime(), "expires_at"),
            _nothing(String(), "variant"),
            *_flags_of(broadcast_states),
        )
        .where(states.user_id == asked.user_id, states.changed_seq > asked.after_seq)
        .order_by(states.changed_seq)
        .limit(CHANGE_LIMIT)
    )
    marks = stream_marks.c
    of_all = (
        select(
            literal("mark").label("part"),
            marks.seq.label("changed_seq"),
            _nothing(BigNumber, "seq"),
            _nothing(Uuid(), "notification_id"),
            _nothing(UtcDateTime(), "created_at"),
            _nothing(UtcDateTime(), "expires_at"),
            _nothing(String(), "variant"),
            marks.at.label("read_at"),
            *(_nothing(UtcDateTime(), name) for name in _FLAGS[1:-1]),
            marks.label.label("last_change"),
        )
        .where(marks.user_id == asked.user_id, marks.seq > asked.after_seq)
        .order_by(marks.seq)
        .limit(CHANGE_LIMIT)
    )
    return new, changed, of_broadcasts, of_all


def _nothing(type_: Any, name: str) -> ColumnElement[Any]:
    # Typed: PostgreSQL takes a bare NULL of a UNION for text.
    return cast(null(), type_).label(name)


def _flags_of(table: Any) -> Iterable[ColumnElement[Any]]:
    return [table.c[name] for name in _FLAGS]


def _select_log(asked: _Asked) -> Sequence[Select[Any]]:
    own_state = and_(
        broadcast_states.c.user_id == asked.user_id, broadcast_states.c.notification_id == broadcasts.c.notification_id
    )
    log = (
        select(
            broadcasts.c.seq,
            broadcasts.c.notification_id,
            broadcasts.c.created_at,
            broadcasts.c.expires_at,
            broadcasts.c.about,
            broadcasts.c.label,
            *_flags_of(broadcast_states),
        )
        .select_from(broadcasts.outerjoin(broadcast_states, own_state))
        .where(
            broadcasts.c.tenant == asked.tenant,
            broadcasts.c.seq > asked.after_broadcast,
            broadcasts.c.removed_at.is_(None) | broadcasts.c.about.is_not(None),
        )
        .order_by(broadcasts.c.seq)
        .limit(asked.limit)
    )
    return (log,)


class _Reading:
    """A query as it is put to SQLite for each question, and for all of them at once to PostgreSQL."""

    def __init__(self, query: _Query) -> None:
        self.query = query
        self.statement = RowsStatement(_ASKED_TYPES, partial(_build_read, query=query))


_CHANGES = _Reading(_select_changes)
_LOG = _Reading(_select_log)
