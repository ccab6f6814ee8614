"""How far devices have come, written to the store for many devices together."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from datetime import timedelta
from typing import Final
from uuid import UUID

import structlog

from notification_service.background import end_tasks, keep_running
from notification_service.clock import Clock
from notification_service.errors import Unavailable
from notification_service.gateway.ports import Mailbox
from notification_service.notifications.pages import Cursor

log = structlog.get_logger(__name__)

# A crash within it makes devices get again what they acknowledged in it, with the same ids. Longer would hardly save
# anything: most devices acknowledge less than once in this time, so the rows written are the same.
_PAUSE: Final = timedelta(milliseconds=100)
_URGENT_PAUSE: Final = timedelta(milliseconds=2)
_BATCH: Final = 2_000


class Cursors:
    """Collects cursors and writes the latest of each device."""

    def __init__(self, mailbox: Mailbox, clock: Clock) -> None:
        self._mailbox = mailbox
        self._clock = clock
        self._waiting: dict[tuple[UUID, str], Cursor] = {}
        self._has_work = asyncio.Event()
        self._is_urgent = asyncio.Event()
        self._writing: dict[tuple[UUID, str], Cursor] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to write."""
        self._task = keep_running(self._run, name="cursors")

    def note(self, user_id: UUID, device_id: str, cursor: Cursor, *, is_leaving: bool = False) -> None:
        """This device has come so far. One that leaves may be on another node in a moment: that is written at once."""
        self._waiting[user_id, device_id] = cursor
        self._has_work.set()
        if is_leaving:
            self._is_urgent.set()

    def find(self, user_id: UUID, device_id: str) -> Cursor | None:
        """What is noted and not in the store yet: a device that reconnects at once goes on from there."""
        key = user_id, device_id
        return self._waiting.get(key) or self._writing.get(key)

    async def stop(self) -> None:
        """Write what is left and end."""
        await end_tasks(self._task)
        try:
            while self._waiting:
                await self._write_some()
        except Unavailable:
            log.warning("cursors_not_written", devices=len(self._waiting))

    async def _run(self) -> None:
        while True:
            await self._has_work.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PAUSE.total_seconds()):
                    await self._is_urgent.wait()
                    # Others that leave at the same time share the transaction.
                    await self._clock.sleep(_URGENT_PAUSE)
            self._is_urgent.clear()
            try:
                await self._write_some()
                while len(self._waiting) >= _BATCH:
                    await self._write_some()
            except Unavailable:
                log.warning("cursors_not_written", devices=len(self._waiting))
            # What came meanwhile waits for others: there is always some, and it would be written by twos and threes.
            if not self._waiting:
                self._has_work.clear()

    async def _write_some(self) -> None:
        keys = list(itertools.islice(self._waiting, _BATCH))
        self._writing = {key: self._waiting.pop(key) for key in keys}
        try:
            await self._mailbox.write_cursors(
                [(user_id, device_id, cursor) for (user_id, device_id), cursor in self._writing.items()]
            )
        except BaseException:
            for key, cursor in self._writing.items():
                self._waiting.setdefault(key, cursor)
            raise
        finally:
            self._writing = {}
