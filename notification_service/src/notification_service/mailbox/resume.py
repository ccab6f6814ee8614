"""What connecting devices need to know of their users' streams, many at once; and how far devices have come."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from uuid import UUID

from sqlalchemy import Executable, FromClause, String, Uuid, and_, case, literal, select, true, update
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.db.base import AnyRow, BigNumber, UtcDateTime
from notification_service.db.dialects import dialect_insert
from notification_service.db.rows import RowsStatement, RowTypes, make_rows
from notification_service.mailbox.counting import COUNT_COLUMNS, add_broadcasts, find_floors
from notification_service.mailbox.live_broadcasts import LiveBroadcasts
from notification_service.mailbox.models import broadcast_streams, device_cursors, store, streams
from notification_service.notifications.pages import Cursor, StreamInfo
from notification_service.notifications.resuming import find_beginning


@dataclass(frozen=True, slots=True)
class Device:
    """A device that connects; `device_id` is the client's own name for itself, or its session."""

    user_id: UUID
    tenant: str
    device_id: str


async def read_epoch(connection: AsyncConnection) -> str:
    """The epoch of this store, made when its tables were."""
    epoch: str = (await connection.execute(select(store.c.epoch))).scalar_one()
    return epoch


async def open_streams(
    connection: AsyncConnection, devices: Sequence[Device], *, epoch: str, live: LiveBroadcasts, now: datetime
) -> dict[tuple[UUID, str], StreamInfo]:
    """Mark these users' queues as declared and read their streams, in one statement and so in one moment.

    Either a worker took its number before, and the top read here contains the item, or it takes it later, and finds the
    mark. Call after the queue was declared. Where a new device begins is kept: should its node die before it has
    acknowledged anything, it is still the one that began here, however far the user's other devices have come.

    Args:
        connection: In a write transaction.
        devices: A user may have several.
    """
    infos = await _read_infos(connection, devices, has_queue=True, epoch=epoch, live=live, now=now)
    begun = [
        (user_id, device_id, *find_beginning(info), 0, 0, now)
        for (user_id, device_id), info in sorted(infos.items())
        if info.cursor is None
    ]
    if begun:
        await _WRITE_CURSORS.execute(connection, begun)
    return infos


async def read_streams(
    connection: AsyncConnection, devices: Sequence[Device], *, epoch: str, live: LiveBroadcasts, now: datetime
) -> dict[tuple[UUID, str], StreamInfo]:
    """The same for devices that do not use a socket: no queue is marked.

    Args:
        connection: In a write transaction: a user's stream begins when it is first asked for.
    """
    return await _read_infos(connection, devices, has_queue=False, epoch=epoch, live=live, now=now)


async def _read_infos(
    connection: AsyncConnection,
    devices: Sequence[Device],
    *,
    has_queue: bool,
    epoch: str,
    live: LiveBroadcasts,
    now: datetime,
) -> dict[tuple[UUID, str], StreamInfo]:
    tenants = {device.user_id: device.tenant for device in devices}
    rows = await _begin_streams(connection, tenants, has_queue=has_queue)
    cursors = await _read_cursors(connection, devices)
    unknown = [user_id for user_id, row in rows.items() if row.broadcast_floor is None]
    floors = await find_floors(connection, unknown) if unknown else {}
    logs = await _read_logs(connection, set(tenants.values()))
    lists = await live.load(connection, set(tenants.values()))
    infos = {}
    for device in devices:
        row = rows[device.user_id]
        floor = floors.get(device.user_id, row.broadcast_floor or 0)
        top_broadcast, floor_broadcast = logs.get(device.tenant, (0, 0))
        infos[device.user_id, device.device_id] = StreamInfo(
            user_id=device.user_id,
            epoch=epoch,
            top_seq=row.top_seq,
            floor_seq=row.floor_seq,
            top_broadcast=top_broadcast,
            floor_broadcast=floor_broadcast,
            acked_seq=row.acked_seq,
            acked_broadcast=row.acked_broadcast,
            broadcast_floor=floor,
            counts=add_broadcasts(row, floor, lists[device.tenant], now),
            cursor=cursors.get((device.user_id, device.device_id)),
        )
    return infos


async def _begin_streams(
    connection: AsyncConnection, tenants: dict[UUID, str], *, has_queue: bool
) -> dict[UUID, AnyRow]:
    statement = _MARK_AND_BEGIN if has_queue else _BEGIN
    return {row.user_id: row for row in await statement.execute(connection, sorted(tenants.items()))}


def _build_begin(dialect_name: str, rows: FromClause, *, has_queue: bool) -> Executable:
    names = ["user_id", "tenant", "queue_declared", "queue_generation"]
    source = select(*rows.c, literal(has_queue), literal(int(has_queue))).where(true())
    changes = (
        {"queue_declared": True, "queue_generation": streams.c.queue_generation + 1}
        if has_queue
        # Changes nothing, but RETURNING answers only rows that were written.
        else {"queue_declared": streams.c.queue_declared}
    )
    begun: Executable = (
        dialect_insert(dialect_name, streams)
        .from_select(names, source)
        .on_conflict_do_update(index_elements=[streams.c.user_id], set_=changes)
        .returning(
            streams.c.user_id,
            streams.c.top_seq,
            streams.c.floor_seq,
            streams.c.acked_seq,
            streams.c.acked_broadcast,
            *COUNT_COLUMNS,
        )
    )
    return begun


_STREAM_TYPES: RowTypes = {"user_id": Uuid(), "tenant": String()}
_BEGIN = RowsStatement(_STREAM_TYPES, partial(_build_begin, has_queue=False))
_MARK_AND_BEGIN = RowsStatement(_STREAM_TYPES, partial(_build_begin, has_queue=True))


async def _read_cursors(connection: AsyncConnection, devices: Sequence[Device]) -> dict[tuple[UUID, str], Cursor]:
    rows = await _READ_CURSORS.execute(connection, [(device.user_id, device.device_id) for device in devices])
    return {
        (row.user_id, row.device_id): Cursor(row.acked_seq, row.acked_broadcast, row.sent_seq, row.sent_broadcast)
        for row in rows
    }


def _build_read_cursors(_dialect_name: str, rows: FromClause) -> Executable:
    columns = device_cursors.c
    return select(
        columns.user_id,
        columns.device_id,
        columns.acked_seq,
        columns.acked_broadcast,
        columns.sent_seq,
        columns.sent_broadcast,
    ).join(rows, and_(columns.user_id == rows.c.user_id, columns.device_id == rows.c.device_id))


_READ_CURSORS = RowsStatement({"user_id": Uuid(), "device_id": String()}, _build_read_cursors)


async def _read_logs(connection: AsyncConnection, tenants: Collection[str]) -> dict[str, tuple[int, int]]:
    if not tenants:
        return {}
    rows = await _READ_LOGS.execute(connection, [(tenant,) for tenant in sorted(tenants)])
    return {row.tenant: (row.top_seq, row.floor_seq) for row in rows}


def _build_read_logs(_dialect_name: str, rows: FromClause) -> Executable:
    columns = broadcast_streams.c
    return select(columns.tenant, columns.top_seq, columns.floor_seq).join(rows, columns.tenant == rows.c.tenant)


_READ_LOGS = RowsStatement({"tenant": String()}, _build_read_logs)


async def read_broadcast_tops(connection: AsyncConnection, tenants: Collection[str]) -> dict[str, int]:
    """The last number of each of these tenants' broadcast logs; tenants without a broadcast are left out."""
    return {tenant: top for tenant, (top, _) in (await _read_logs(connection, tenants)).items()}


async def clear_queue_marks(connection: AsyncConnection, gone: Collection[tuple[UUID, int]]) -> None:
    """Forget queues that turned out not to exist, unless they were declared again since.

    Args:
        connection: In a write transaction.
        gone: (user, queue generation) as read when the message was addressed.
    """
    rows = make_rows(connection, {"user_id": Uuid(), "generation": BigNumber}, sorted(gone))
    await connection.execute(
        update(streams)
        .where(streams.c.user_id == rows.c.user_id, streams.c.queue_generation == rows.c.generation)
        .values(queue_declared=False)
    )


async def write_cursors(
    connection: AsyncConnection, cursors: Sequence[tuple[UUID, str, Cursor]], *, now: datetime
) -> None:
    """Remember how far devices have come. Never goes back, so that writing late or twice does no harm.

    Args:
        connection: In a write transaction.
        cursors: Each (user, device) once.
    """
    records = sorted(
        (user_id, device_id, cursor.acked_seq, cursor.acked_broadcast, cursor.sent_seq, cursor.sent_broadcast, now)
        for user_id, device_id, cursor in cursors
    )
    await _WRITE_CURSORS.execute(connection, records)
    furthest: dict[UUID, tuple[int, int]] = {}
    for user_id, _, cursor in cursors:
        seq, broadcast = furthest.get(user_id, (0, 0))
        furthest[user_id] = max(seq, cursor.acked_seq), max(broadcast, cursor.acked_broadcast)
    await _RAISE_ACKED.execute(connection, [(user_id, *numbers) for user_id, numbers in sorted(furthest.items())])


_CURSOR_TYPES: RowTypes = {
    "user_id": Uuid(),
    "device_id": String(),
    "acked_seq": BigNumber,
    "acked_broadcast": BigNumber,
    "sent_seq": BigNumber,
    "sent_broadcast": BigNumber,
    "updated_at": UtcDateTime(),
}


def _build_write_cursors(dialect_name: str, rows: FromClause) -> Executable:
    insertion = dialect_insert(dialect_name, device_cursors)
    insertion = insertion.from_select(list(_CURSOR_TYPES), select(*rows.c).where(true()))
    new, old = insertion.excluded, device_cursors.c
    numbers = ("acked_seq", "acked_broadcast", "sent_seq", "sent_broadcast")
    written: Executable = insertion.on_conflict_do_update(
        index_elements=["user_id", "device_id"],
        set_={
            **{name: case((new[name] > old[name], new[name]), else_=old[name]) for name in numbers},
            "updated_at": new.updated_at,
        },
    )
    return written


def _build_raise_acked(_dialect_name: str, rows: FromClause) -> Executable:
    new, old = rows.c, streams.c
    return (
        update(streams)
        .where(
            old.user_id == new.user_id,
            (new.acked_seq > old.acked_seq) | (new.acked_broadcast > old.acked_broadcast),
        )
        .values(
            acked_seq=case((new.acked_seq > old.acked_seq, new.acked_seq), else_=old.acked_seq),
            acked_broadcast=case(
                (new.acked_broadcast > old.acked_broadcast, new.acked_broadcast), else_=old.acked_broadcast
            ),
        )
    )


_WRITE_CURSORS = RowsStatement(_CURSOR_TYPES, _build_write_cursors)
_RAISE_ACKED = RowsStatement(
    {"user_id": Uuid(), "acked_seq": BigNumber, "acked_broadcast": BigNumber}, _build_raise_acked
)


async def read_tops(connection: AsyncConnection, user_ids: Collection[UUID]) -> dict[UUID, int]:
    """The last number of each of these users' streams."""
    asked = make_rows(connection, {"user_id": Uuid()}, [(each,) for each in user_ids], "asked")
    rows = await connection.execute(
        select(streams.c.user_id, streams.c.top_seq).join(asked, streams.c.user_id == asked.c.user_id)
    )
    return {row.user_id: row.top_seq for row in rows}
