"""A mailbox to put things into and to read from, on both databases."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from notification_service.db.engine import Database
from notification_service.identity.mirror_rows import upsert_users
from notification_service.mailbox import resume
from notification_service.mailbox.actions import Action
from notification_service.mailbox.changes import read_changes
from notification_service.mailbox.keep import keep_broadcasts, keep_items
from notification_service.mailbox.live_broadcasts import LiveBroadcasts
from notification_service.mailbox.paging import Wanted
from notification_service.mailbox.state import StateChange, change_state
from notification_service.notifications.entity import EventTypeDefaults, Notification, Sender, make_notification
from notification_service.notifications.kept import KeptBroadcast, KeptItem
from notification_service.notifications.pages import Cursor, Page, StreamInfo
from notification_service.notifications.repository import Routed, upsert_routed
from shared_contracts.identity_events import UserSnapshot
from shared_contracts.requests import Kind, NotificationRequest, Recipients

START = datetime(2026, 1, 1, 12, tzinfo=UTC)


@dataclass
class Mail:
    """The mailbox's functions, each in a transaction of its own, with a clock that moves a second with every call."""

    database: Database
    live: LiveBroadcasts = field(default_factory=LiveBroadcasts)
    now: datetime = START

    def tick(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now

    async def make_users(self, count: int, *, tenant: str = "default") -> list[UUID]:
        ids = sorted(uuid4() for _ in range(count))
        people = [
            UserSnapshot(id=each, username=each.hex, tenant=tenant, created_at=self.tick(), email_verified=False)
            for each in ids
        ]
        async with self.database.write() as connection:
            await upsert_users(connection, people)
        return ids

    def make_notification(self, *, to_all: bool = False, **fields: Any) -> Notification:
        recipients = Recipients(all=True) if to_all else Recipients(users=(str(uuid4()),))
        return make_notification(
            NotificationRequest(**{"title": "t", "recipients": recipients, **fields}),
            notification_id=uuid4(),
            kind=Kind.BROADCAST if to_all else Kind.PRIVATE,
            sender=Sender(),
            now=self.tick(),
            defaults=EventTypeDefaults(),
        )

    async def keep(self, *user_ids: UUID, **fields: Any) -> list[KeptItem]:
        """One notification for these users."""
        notification = self.make_notification(**fields)
        async with self.database.write() as connection:
            await self._store(connection, [notification])
            return await keep_items(connection, [(notification, user_ids)], live=self.live, now=self.now)

    async def keep_many(self, user_id: UUID, count: int, **fields: Any) -> list[UUID]:
        """Notifications for one user, in one batch; answers their ids."""
        notifications = [self.make_notification(**fields) for _ in range(count)]
        async with self.database.write() as connection:
            await self._store(connection, notifications)
            await keep_items(connection, [(each, [user_id]) for each in notifications], live=self.live, now=self.now)
        return [each.id for each in notifications]

    async def broadcast(self, **fields: Any) -> KeptBroadcast:
        notification = self.make_notification(to_all=True, **fields)
        async with self.database.write() as connection:
            await self._store(connection, [notification])
            return (await keep_broadcasts(connection, [notification]))[0]

    async def _store(self, connection: Any, notifications: list[Notification]) -> None:
        routed = [(each, Routed(1, [])) for each in notifications]
        await upsert_routed(connection, routed, now=self.now, relay_after=self.now)

    async def change(self, user_id: UUID, action: Action, ids: list[UUID] | None) -> StateChange:
        async with self.database.write() as connection:
            return await change_state(
                connection,
                user_id=user_id,
                tenant="default",
                action=action,
                ids=ids,
                live=self.live,
                now=self.tick(),
            )

    async def open(self, user_id: UUID, device_id: str = "phone", *, tenant: str = "default") -> StreamInfo:
        async with self.database.write() as connection:
            epoch = await resume.read_epoch(connection)
            infos = await resume.open_streams(
                connection, [resume.Device(user_id, tenant, device_id)], epoch=epoch, live=self.live, now=self.tick()
            )
        return infos[user_id, device_id]

    async def changes(self, user_id: UUID, after_seq: int = 0, after_broadcast: int = 0, *, limit: int = 100) -> Page:
        wanted = Wanted(user_id, "default", after_seq, after_broadcast, limit)
        async with self.database.read() as connection:
            return (await read_changes(connection, [wanted], live=self.live, now=self.now))[user_id]

    async def write_cursor(self, user_id: UUID, cursor: Cursor, device_id: str = "phone") -> None:
        async with self.database.write() as connection:
            await resume.write_cursors(connection, [(user_id, device_id, cursor)], now=self.tick())
