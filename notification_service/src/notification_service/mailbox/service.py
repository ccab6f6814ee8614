"""The inbox as one object: what the REST endpoints and the gateway ask of the mailbox."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import orjson
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.clock import Clock
from notification_service.db.engine import Database
from notification_service.errors import BadRequest, InvalidSchema, NotFound
from notification_service.mailbox import inbox
from notification_service.mailbox.actions import Action
from notification_service.mailbox.changes import read_changes
from notification_service.mailbox.inbox import InboxCursor, InboxFilter, InboxPage
from notification_service.mailbox.live_broadcasts import LiveBroadcasts
from notification_service.mailbox.paging import Wanted
from notification_service.mailbox.resume import Device, read_epoch, read_streams, write_cursors
from notification_service.mailbox.state import StateChange, change_state
from notification_service.notifications.kept import Counts
from notification_service.notifications.pages import Cursor, Page
from notification_service.notifications.resuming import Resume, decide_start
from shared_contracts.problems import FieldError
from shared_contracts.ws.frames import MAX_IDS
from shared_contracts.ws.positions import Position

SYNC_LIMIT: Final = 200
_MAX_FILTERED: Final = 10_000

TellDevices = Callable[[StateChange], None]
"""Begins to send the `state` frame of a change to every device of the user; nobody waits for it."""

OnAcknowledged = Callable[[UUID, str, Position], None]
"""Tells the gateway nodes: the device may be listening to one of them over server-sent events."""


OnChanging = Callable[[AsyncConnection, UUID, Action, Sequence[UUID] | None], Awaitable[None]]
"""What else belongs to the transaction of a user's change: which user, what is done, to which items (None: to all)."""


async def _nothing_else(
    _connection: AsyncConnection, _user_id: UUID, _action: Action, _ids: Sequence[UUID] | None
) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Sync:
    """What changed since a position.

    Attributes:
        frames: As the socket would send them.
        position: Where the next call goes on.
    """

    frames: list[dict[str, Any]]
    position: str
    has_more: bool
    resume: Resume
    counts: Counts


class Inbox:
    """One user's view at a time; every method takes whose."""

    def __init__(
        self,
        *,
        database: Database,
        live: LiveBroadcasts,
        clock: Clock,
        tell_devices: TellDevices,
        resume_max_items: int,
        on_acknowledged: OnAcknowledged = lambda _user_id, _device_id, _position: None,
        on_changing: OnChanging = _nothing_else,
    ) -> None:
        self._on_changing = on_changing
        self._on_acknowledged = on_acknowledged
        self._database = database
        self._live = live
        self._clock = clock
        self._tell_devices = tell_devices
        self._resume_max_items = resume_max_items
        self._epoch: str | None = None

    async def get_page(
        self, user_id: UUID, tenant: str, wanted: InboxFilter, *, limit: int, cursor: InboxCursor | None
    ) -> InboxPage:
        """A page of items, the newest first."""
        async with self._database.read() as connection:
            return await inbox.list_inbox(
                connection,
                user_id=user_id,
                tenant=tenant,
                wanted=wanted,
                limit=limit,
                cursor=cursor,
                now=self._clock.now(),
            )

    async def get_item(self, user_id: UUID, tenant: str, notification_id: UUID) -> dict[str, Any]:
        """One item.

        Raises:
            NotFound: Not there, or not this user's.
        """
        async with self._database.read() as connection:
            found = await inbox.find_item(
                connection, user_id=user_id, tenant=tenant, notification_id=notification_id, now=self._clock.now()
            )
        if found is None:
            raise NotFound("there is no such item in this inbox")
        return found

    async def count(self, user_id: UUID, tenant: str, filters: Sequence[InboxFilter] = ()) -> tuple[Counts, list[int]]:
        """The kept counts, and how many items each filter finds."""
        now = self._clock.now()
        async with self._database.write() as connection:
            counts = await inbox.read_counts(connection, user_id=user_id, tenant=tenant, live=self._live, now=now)
            found = [
                await inbox.count_filtered(connection, user_id=user_id, tenant=tenant, wanted=each, now=now)
                for each in filters
            ]
        return counts, found

    async def change(
        self,
        user_id: UUID,
        tenant: str,
        action: Action,
        ids: Sequence[UUID] | None,
        *,
        until: datetime | None = None,
    ) -> StateChange:
        """Apply one action to some items, or to all (None), and tell every device.

        Raises:
            InvalidSchema: Snoozed until a time that is past.
        """
        if until is not None and until <= self._clock.now():
            raise InvalidSchema([FieldError(field="snoozed_until", message="must be in the future")])
        async with self._database.write() as connection:
            change = await change_state(
                connection,
                user_id=user_id,
                tenant=tenant,
                action=action,
                ids=ids,
                live=self._live,
                now=self._clock.now(),
                until=until,
            )
            if change.changed_count:
                await self._on_changing(connection, user_id, action, ids)
        if change.seq is not None:
            self._tell_devices(change)
        return change

    async def change_filtered(
        self, user_id: UUID, tenant: str, action: Action, wanted: InboxFilter, *, until: datetime | None = None
    ) -> tuple[int, Counts]:
        """Apply one action to everything a filter finds, up to 10,000 items; answers how many changed."""
        if wanted == InboxFilter():
            change = await self.change(user_id, tenant, action, None, until=until)
            return change.changed_count, change.counts
        async with self._database.read() as connection:
            ids = await inbox.find_ids(
                connection, user_id=user_id, tenant=tenant, wanted=wanted, limit=_MAX_FILTERED, now=self._clock.now()
            )
        changed = 0
        for start in range(0, len(ids), MAX_IDS):
            change = await self.change(user_id, tenant, action, ids[start : start + MAX_IDS], until=until)
            changed += change.changed_count
        counts, _ = await self.count(user_id, tenant)
        return changed, counts

    async def sync(self, user_id: UUID, tenant: str, device_id: str, position: str | None) -> Sync:
        """What changed since a position, or since the device's last acknowledgement; at most 200 notifications."""
        now = self._clock.now()
        device = Device(user_id, tenant, device_id)
        async with self._database.write() as connection:
            epoch = await self._get_epoch(connection)
            info = (await read_streams(connection, [device], epoch=epoch, live=self._live, now=now))[user_id, device_id]
            start = decide_start(position, info, max_items=self._resume_max_items)
            wanted = Wanted(user_id, tenant, start.seq, start.broadcast, SYNC_LIMIT)
            page = (await read_changes(connection, [wanted], live=self._live, now=now))[user_id]
        end = Position(epoch, page.broadcast, page.seq)
        frames = _describe_frames(page, Position(epoch, start.broadcast, start.seq))
        return Sync(frames, str(end), page.has_more, start.resume, info.counts)

    async def acknowledge(self, user_id: UUID, tenant: str, device_id: str, position: Position) -> None:
        """A device that does not use a socket has everything up to this position.

        Raises:
            BadRequest: A position that was never given out.
        """
        now = self._clock.now()
        device = Device(user_id, tenant, device_id)
        async with self._database.write() as connection:
            epoch = await self._get_epoch(connection)
            info = (await read_streams(connection, [device], epoch=epoch, live=self._live, now=now))[user_id, device_id]
            if position.epoch != epoch or position.seq > info.top_seq or position.broadcast > info.top_broadcast:
                raise BadRequest("the position was not given out by this server")
            cursor = Cursor(position.seq, position.broadcast, position.seq, position.broadcast)
            await write_cursors(connection, [(user_id, device_id, cursor)], now=now)
        self._on_acknowledged(user_id, device_id, position)

    async def _get_epoch(self, connection: Any) -> str:
        if self._epoch is None:
            self._epoch = await read_epoch(connection)
        return self._epoch


def _describe_frames(page: Page, position: Position) -> list[dict[str, Any]]:
    frames = []
    for entry in page.entries:
        if entry.is_broadcast:
            position = position._replace(broadcast=entry.number)
        else:
            position = position._replace(seq=entry.number)
        frames.append({"type": str(entry.type), "position": str(position), **orjson.loads(entry.body)})
    return frames
