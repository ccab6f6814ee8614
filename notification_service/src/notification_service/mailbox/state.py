"""Changing the state of items: one number in the user's stream per action, so every device learns of it in order."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import astuple, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, String, Uuid, and_, case, delete, func, insert, literal, or_, select, true, update
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.db.base import AnyRow, BigNumber, UtcDateTime
from notification_service.db.dialects import insert_into
from notification_service.db.rows import make_rows
from notification_service.mailbox.actions import LABELS, Action, ItemFlags, apply_action
from notification_service.mailbox.counting import COUNT_COLUMNS, add_broadcasts, find_floors
from notification_service.mailbox.live_broadcasts import LiveBroadcasts
from notification_service.mailbox.models import broadcast_states, broadcasts, items, stream_marks, streams
from notification_service.notifications.frames import encode_state
from notification_service.notifications.kept import Counts

_FLAG_NAMES = ("read_at", "seen_at", "archived_at", "snoozed_until", "deleted_at", "pinned_at")
_FLAG_TYPES = dict.fromkeys(_FLAG_NAMES, UtcDateTime())


@dataclass(frozen=True, slots=True)
class StateChange:
    """What one action changed.

    Attributes:
        seq: Its number in the stream; None when nothing changed.
        changed_count: Items whose flags are different now.
        body: The `state` frame's body for every device; None when nothing changed.
        has_queue, queue_generation: As in `KeptItem`.
    """

    user_id: UUID
    seq: int | None
    changed_count: int
    counts: Counts
    body: bytes | None
    has_queue: bool
    queue_generation: int
    tenant: str = ""


async def change_state(
    connection: AsyncConnection,
    *,
    user_id: UUID,
    tenant: str,
    action: Action,
    ids: Sequence[UUID] | None,
    live: LiveBroadcasts,
    now: datetime,
    until: datetime | None = None,
) -> StateChange:
    """Apply an action to some of a user's items, or to all (`ids` None). Ids that are not the user's are passed over.

    Args:
        connection: In a write transaction; the user's stream is locked until it ends.
        ids: At most MAX_IDS.
    """
    stream = await _lock_stream(connection, user_id, tenant)
    if stream.broadcast_floor is None:
        floor = (await find_floors(connection, [user_id])).get(user_id, 0)
    else:
        floor = stream.broadcast_floor
    seq = stream.top_seq + 1
    if ids is None:
        changed = await _change_all(connection, user_id, tenant, action, floor=floor, seq=seq, now=now, until=until)
        changed_ids = None
    else:
        changed_ids = await _change_some(connection, user_id, tenant, action, ids, seq=seq, now=now, until=until)
        changed = len(changed_ids)
    if changed:
        await connection.execute(update(streams).where(streams.c.user_id == user_id).values(top_seq=seq))
    after = (await connection.execute(select(streams).where(streams.c.user_id == user_id))).one()
    counts = add_broadcasts(after, floor, (await live.load(connection, {tenant}))[tenant], now)
    body = encode_state(ids=changed_ids, label=LABELS[action], at=now, seq=seq, counts=counts) if changed else None
    return StateChange(
        user_id, seq if changed else None, changed, counts, body, stream.queue_declared, stream.queue_generation, tenant
    )


async def _lock_stream(connection: AsyncConnection, user_id: UUID, tenant: str) -> AnyRow:
    query = select(streams.c.top_seq, streams.c.queue_declared, streams.c.queue_generation, *COUNT_COLUMNS).where(
        streams.c.user_id == user_id
    )
    found = (await connection.execute(query.with_for_update())).one_or_none()
    if found is None:
        await connection.execute(
            insert_into(connection, streams).values(user_id=user_id, tenant=tenant).on_conflict_do_nothing()
        )
        found = (await connection.execute(query.with_for_update())).one()
    return found


async def _change_some(
    connection: AsyncConnection,
    user_id: UUID,
    tenant: str,
    action: Action,
    ids: Sequence[UUID],
    *,
    seq: int,
    now: datetime,
    until: datetime | None,
) -> list[UUID]:
    own = await _find_items(connection, user_id, ids)
    left = [each for each in dict.fromkeys(ids) if each not in own]
    shared = await _find_broadcasts(connection, user_id, tenant, left) if left else {}
    label = LABELS[action]
    deltas = [0, 0, 0]
    changed_items, changed_states = [], []
    for row in own.values():
        before = ItemFlags(*(row._mapping[name] for name in _FLAG_NAMES))  # noqa: SLF001 - SQLAlchemy's public name
        after = apply_action(action, before, now, until=until)
        if after is not before:
            changed_items.append((row.seq, *astuple(after)))
            deltas = [delta + new - old for delta, new, old in zip(deltas, after.counts, before.counts, strict=True)]
    broadcast_deltas = [0, 0, 0]
    for notification_id, row in shared.items():
        before = ItemFlags(*(row._mapping[name] for name in _FLAG_NAMES))  # noqa: SLF001
        after = apply_action(action, before, now, until=until)
        if after is not before:
            changed_states.append((notification_id, row.broadcast_seq, *astuple(after)))
            pairs = zip(broadcast_deltas, after.counts, before.counts, strict=True)
            broadcast_deltas = [delta + old - new for delta, new, old in pairs]
    await _write_items(connection, user_id, changed_items, label=label, seq=seq)
    await _write_states(connection, user_id, changed_states, label=label, seq=seq)
    await _add_to_counts(connection, user_id, deltas, broadcast_deltas)
    item_ids = {row.seq: notification_id for notification_id, row in own.items()}
    return [item_ids[record[0]] for record in changed_items] + [record[0] for record in changed_states]


async def _find_items(connection: AsyncConnection, user_id: UUID, ids: Sequence[UUID]) -> dict[UUID, AnyRow]:
    rows = await connection.execute(
        select(items.c.notification_id, items.c.seq, *(items.c[name] for name in _FLAG_NAMES)).where(
            items.c.user_id == user_id, items.c.notification_id.in_(ids)
        )
    )
    return {row.notification_id: row for row in rows}


async def _find_broadcasts(
    connection: AsyncConnection, user_id: UUID, tenant: str, ids: Sequence[UUID]
) -> dict[UUID, AnyRow]:
    own = and_(
        broadcast_states.c.notification_id == broadcasts.c.notification_id, broadcast_states.c.user_id == user_id
    )
    rows = await connection.execute(
        select(
            broadcasts.c.notification_id,
            broadcasts.c.seq.label("broadcast_seq"),
            *(broadcast_states.c[name] for name in _FLAG_NAMES),
        )
        .select_from(broadcasts.outerjoin(broadcast_states, own))
        .where(broadcasts.c.tenant == tenant, broadcasts.c.notification_id.in_(ids), broadcasts.c.removed_at.is_(None))
    )
    return {row.notification_id: row for row in rows}


async def _write_items(
    connection: AsyncConnection, user_id: UUID, records: list[tuple[Any, ...]], *, label: str, seq: int
) -> None:
    if not records:
        return
    rows = make_rows(connection, {"seq": BigNumber, **_FLAG_TYPES}, records)
    await connection.execute(
        update(items)
        .where(items.c.user_id == user_id, items.c.seq == rows.c.seq)
        .values(changed_seq=seq, last_change=label, **{name: rows.c[name] for name in _FLAG_NAMES})
    )


async def _write_states(
    connection: AsyncConnection, user_id: UUID, records: list[tuple[Any, ...]], *, label: str, seq: int
) -> None:
    if not records:
        return
    types = {"notification_id": Uuid(), "broadcast_seq": BigNumber, **_FLAG_TYPES}
    rows = make_rows(connection, types, records)
    names = ["user_id", "changed_seq", "last_change", *types]
    source = select(literal(user_id, Uuid()), literal(seq, BigNumber), literal(label, String()), *rows.c).where(true())
    insertion = insert_into(connection, broadcast_states).from_select(names, source)
    await connection.execute(
        insertion.on_conflict_do_update(
            index_elements=["user_id", "notification_id"],
            set_={name: insertion.excluded[name] for name in ("changed_seq", "last_change", *_FLAG_NAMES)},
        )
    )


async def _add_to_counts(
    connection: AsyncConnection, user_id: UUID, deltas: Sequence[int], broadcast_deltas: Sequence[int]
) -> None:
    names = ("unread", "unseen", "total", "broadcasts_read", "broadcasts_seen", "broadcasts_removed")
    values = {
        name: streams.c[name] + delta for name, delta in zip(names, (*deltas, *broadcast_deltas), strict=True) if delta
    }
    if values:
        await connection.execute(update(streams).where(streams.c.user_id == user_id).values(**values))


# --- everything at once --------------------------------------------------------------------------------------------


async def _change_all(
    connection: AsyncConnection,
    user_id: UUID,
    tenant: str,
    action: Action,
    *,
    floor: int,
    seq: int,
    now: datetime,
    until: datetime | None,
) -> int:
    # The items keep their `changed_seq`: one mark stands for all of them, and a device that was away gets one frame.
    touched = await connection.execute(
        update(items)
        .where(items.c.user_id == user_id, *_conditions(action, items))
        .values(**_assignments(action, items, now, until))
    )
    changed = touched.rowcount
    if action not in (Action.UNREAD, Action.UNARCHIVE, Action.UNSNOOZE, Action.UNPIN):
        await _insert_missing_states(connection, user_id, tenant, floor=floor)
    touched = await connection.execute(
        update(broadcast_states)
        .where(broadcast_states.c.user_id == user_id, *_conditions(action, broadcast_states))
        .values(**_assignments(action, broadcast_states, now, until))
    )
    changed += touched.rowcount
    if changed:
        await connection.execute(insert(stream_marks).values(user_id=user_id, seq=seq, label=LABELS[action], at=now))
        await _count_again(connection, user_id, tenant)
    return changed


async def _insert_missing_states(connection: AsyncConnection, user_id: UUID, tenant: str, *, floor: int) -> None:
    known = select(broadcast_states.c.notification_id).where(broadcast_states.c.user_id == user_id)
    missing = select(
        literal(user_id, Uuid()), broadcasts.c.notification_id, broadcasts.c.seq, literal(0, BigNumber)
    ).where(
        broadcasts.c.tenant == tenant,
        broadcasts.c.seq > floor,
        broadcasts.c.removed_at.is_(None),
        broadcasts.c.notification_id.not_in(known),
    )
    # changed_seq 0: nothing for a resume to report; the mark at `seq` does.
    await connection.execute(
        insert(broadcast_states).from_select(["user_id", "notification_id", "broadcast_seq", "changed_seq"], missing)
    )


def _conditions(action: Action, table: Any) -> list[ColumnElement[bool]]:
    columns = table.c
    visible = [columns.deleted_at.is_(None), columns.archived_at.is_(None), columns.snoozed_until.is_(None)]
    match action:
        case Action.READ:
            return [*visible, columns.read_at.is_(None)]
        case Action.UNREAD:
            return [*visible, columns.read_at.is_not(None)]
        case Action.SEEN:
            return [*visible, columns.seen_at.is_(None)]
        case Action.UNARCHIVE:
            return [columns.deleted_at.is_(None), columns.archived_at.is_not(None)]
        case Action.UNSNOOZE:
            return [columns.deleted_at.is_(None), columns.snoozed_until.is_not(None)]
        case Action.PIN:
            return [*visible, columns.pinned_at.is_(None)]
        case Action.UNPIN:
            return [columns.deleted_at.is_(None), columns.pinned_at.is_not(None)]
    return visible


def _assignments(  # noqa: C901 - one line for each action
    action: Action, table: Any, now: datetime, until: datetime | None
) -> dict[str, Any]:
    match action:
        case Action.READ:
            return {"read_at": now, "seen_at": func.coalesce(table.c.seen_at, literal(now, UtcDateTime()))}
        case Action.UNREAD:
            return {"read_at": None}
        case Action.SEEN:
            return {"seen_at": now}
        case Action.ARCHIVE:
            return {"archived_at": now}
        case Action.UNARCHIVE:
            return {"archived_at": None}
        case Action.DELETE:
            return {"deleted_at": now}
        case Action.SNOOZE:
            return {"snoozed_until": until}
        case Action.UNSNOOZE:
            return {"snoozed_until": None, "read_at": None, "seen_at": None}
        case Action.PIN:
            return {"pinned_at": now}
        case Action.UNPIN:
            return {"pinned_at": None}


def _is_hidden(columns: Any) -> ColumnElement[bool]:
    return or_(columns.deleted_at.is_not(None), columns.archived_at.is_not(None), columns.snoozed_until.is_not(None))


async def _count_again(connection: AsyncConnection, user_id: UUID, tenant: str) -> None:
    count = func.count
    own = (
        await connection.execute(
            select(count().filter(items.c.read_at.is_(None)), count().filter(items.c.seen_at.is_(None)), count()).where(
                items.c.user_id == user_id, ~_is_hidden(items.c)
            )
        )
    ).one()
    states = broadcast_states.c
    shared = (
        await connection.execute(
            select(
                count().filter(or_(states.read_at.is_not(None), _is_hidden(states))),
                count().filter(or_(states.seen_at.is_not(None), _is_hidden(states))),
                count().filter(_is_hidden(states)),
            )
            .select_from(
                broadcast_states.join(
                    broadcasts,
                    and_(broadcasts.c.tenant == tenant, broadcasts.c.notification_id == states.notification_id),
                )
            )
            .where(states.user_id == user_id, broadcasts.c.removed_at.is_(None))
        )
    ).one()
    names = ("unread", "unseen", "total", "broadcasts_read", "broadcasts_seen", "broadcasts_removed")
    await connection.execute(
        update(streams).where(streams.c.user_id == user_id).values(**dict(zip(names, (*own, *shared), strict=True)))
    )


async def forget_broadcasts(connection: AsyncConnection, ids: Collection[UUID]) -> None:
    """Take what users did with broadcasts that are gone out of their counts of the live ones, and forget it."""
    states = broadcast_states.c
    hidden = _is_hidden(states)
    sums = (
        select(
            states.user_id,
            func.sum(case((or_(states.read_at.is_not(None), hidden), 1), else_=0)).label("read"),
            func.sum(case((or_(states.seen_at.is_not(None), hidden), 1), else_=0)).label("seen"),
            func.sum(case((hidden, 1), else_=0)).label("removed"),
        )
        .where(states.notification_id.in_(ids))
        .group_by(states.user_id)
        .subquery()
    )
    await connection.execute(
        update(streams)
        .where(streams.c.user_id == sums.c.user_id)
        .values(
            broadcasts_read=streams.c.broadcasts_read - sums.c.read,
            broadcasts_seen=streams.c.broadcasts_seen - sums.c.seen,
            broadcasts_removed=streams.c.broadcasts_removed - sums.c.removed,
        )
    )
    await connection.execute(delete(broadcast_states).where(states.notification_id.in_(ids)))
