"""The mailbox as the gateway and dispatch see it: their ports, filled with the mailbox's functions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.channels.receipts import Receipts
from notification_service.clock import Clock
from notification_service.db.engine import Database
from notification_service.entrypoints.receipt_sources import find_newly_acked
from notification_service.gateway.ports import Device, ItemsChanged, PageWanted
from notification_service.mailbox import resume
from notification_service.mailbox.actions import LABELS, Action
from notification_service.mailbox.changes import read_changes
from notification_service.mailbox.live_broadcasts import LiveBroadcasts
from notification_service.mailbox.load import load_kept_broadcasts, load_kept_items
from notification_service.mailbox.paging import Wanted
from notification_service.mailbox.service import Inbox
from notification_service.notifications.entity import Notification
from notification_service.notifications.kept import KeptBroadcast, KeptItem
from notification_service.notifications.pages import Cursor, Page, StreamInfo


class MailboxPort:
    """`gateway.ports.Mailbox`."""

    def __init__(
        self, database: Database, inbox: Inbox, live: LiveBroadcasts, clock: Clock, receipts: Receipts
    ) -> None:
        self._database = database
        self._inbox = inbox
        self._live = live
        self._clock = clock
        self._receipts = receipts
        self._epoch: str | None = None

    async def open(self, devices: Sequence[Device]) -> Sequence[StreamInfo]:
        """Mark queues as declared and read the streams."""
        async with self._database.write() as connection:
            if self._epoch is None:
                self._epoch = await resume.read_epoch(connection)
            infos = await resume.open_streams(
                connection,
                [resume.Device(each.user_id, each.tenant, each.device_id) for each in devices],
                epoch=self._epoch,
                live=self._live,
                now=self._clock.now(),
            )
        return [infos[each.user_id, each.device_id] for each in devices]

    async def read_pages(self, wanted: Sequence[PageWanted]) -> Sequence[Page]:
        """Read pages; devices of one user that ask at the same time are read one after another."""
        pages: dict[int, Page] = {}
        waiting = list(enumerate(wanted))
        async with self._database.read() as connection:
            while waiting:
                batch: dict[UUID, tuple[int, Wanted]] = {}
                later = []
                for index, each in waiting:
                    if each.user_id in batch:
                        later.append((index, each))
                        continue
                    question = Wanted(each.user_id, each.tenant, each.after_seq, each.after_broadcast, each.limit)
                    batch[each.user_id] = index, question
                found = await read_changes(
                    connection, [question for _, question in batch.values()], live=self._live, now=self._clock.now()
                )
                pages |= {index: found[user_id] for user_id, (index, _) in batch.items()}
                waiting = later
        return [pages[index] for index in range(len(wanted))]

    async def write_cursors(self, cursors: Sequence[tuple[UUID, str, Cursor]]) -> None:
        """Remember how far devices have come."""
        now = self._clock.now()
        async with self._database.write() as connection:
            receipts = await find_newly_acked(connection, cursors, now=now)
            await resume.write_cursors(connection, cursors, now=now)
        self._receipts.add(receipts)

    async def read_tops(self, user_ids: Collection[UUID]) -> dict[UUID, int]:
        """The last number of each stream."""
        async with self._database.read() as connection:
            return await resume.read_tops(connection, user_ids)

    async def read_broadcast_tops(self, tenants: Collection[str]) -> dict[str, int]:
        """The last number of each broadcast log."""
        async with self._database.read() as connection:
            return await resume.read_broadcast_tops(connection, tenants)

    async def change_items(
        self, *, user_id: UUID, tenant: str, action: str, ids: Sequence[UUID] | None
    ) -> ItemsChanged:
        """Change the state of items and tell every device."""
        change = await self._inbox.change(user_id, tenant, Action(action), ids)
        return ItemsChanged(change.seq, change.body, LABELS[Action(action)], change.counts)


class KeptPort:
    """`dispatch.ports.KeptSource`."""

    def __init__(self, live: LiveBroadcasts) -> None:
        self._live = live

    def items(
        self, connection: AsyncConnection, notification: Notification, now: datetime
    ) -> AsyncIterator[list[KeptItem]]:
        """Items of one notification."""
        return load_kept_items(connection, notification, live=self._live, now=now)

    async def broadcasts(
        self, connection: AsyncConnection, notifications: Sequence[Notification]
    ) -> list[KeptBroadcast]:
        """Log entries."""
        return await load_kept_broadcasts(connection, notifications)
