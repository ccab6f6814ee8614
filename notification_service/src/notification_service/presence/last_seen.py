"""Writing down when users were last seen, for many together."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import structlog

from notification_service.background import end_tasks, keep_running
from notification_service.clock import Clock
from notification_service.db.engine import Database
from notification_service.errors import Unavailable
from notification_service.presence.repository import write_last_seen

log = structlog.get_logger(__name__)

# Nobody waits for it: every row written at once would be a transaction per connection.
_PAUSE: Final = timedelta(seconds=2)
_BATCH: Final = 2_000
_MAX_WAITING: Final = 200_000


class LastSeen:
    """Collects moments and writes the latest of each user."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._waiting: dict[UUID, datetime] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to write."""
        self._task = keep_running(self._run, name="last-seen")

    def note(self, user_id: UUID, seen_at: datetime) -> None:
        """The user was there. While the database is away, at most 200,000 users are remembered."""
        if user_id in self._waiting or len(self._waiting) < _MAX_WAITING:
            self._waiting[user_id] = seen_at

    async def stop(self) -> None:
        """Write what is left and end."""
        await end_tasks(self._task)
        await self._flush()

    async def _run(self) -> None:
        while True:
            await self._clock.sleep(_PAUSE)
            await self._flush()

    async def _flush(self) -> None:
        while self._waiting:
            batch = {user_id: self._waiting[user_id] for user_id in list(self._waiting)[:_BATCH]}
            try:
                async with self._database.write() as connection:
                    await write_last_seen(connection, list(batch.items()))
            except Unavailable:
                log.warning("last_seen_not_written", users=len(self._waiting))
                return
            for user_id, seen_at in batch.items():
                if self._waiting.get(user_id) == seen_at:
                    del self._waiting[user_id]
