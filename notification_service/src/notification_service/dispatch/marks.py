"""Noting what is dispatched, for many batches in one transaction: late is harmless, it only means a repeat."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Final
from uuid import UUID

import structlog

from notification_service import failpoints
from notification_service.background import end_tasks, keep_running
from notification_service.clock import Clock
from notification_service.db.engine import Database
from notification_service.dispatch.dispatcher import Dispatched
from notification_service.dispatch.ports import ClearQueueMarks
from notification_service.errors import Unavailable
from notification_service.notifications.repository import mark_dispatched

log = structlog.get_logger(__name__)

# 50 ms: off the path of the message, and long enough to make one transaction of many at full load.
_PAUSE: Final = timedelta(milliseconds=50)
_RETRY_PAUSE: Final = timedelta(seconds=1)


class DispatchMarks:
    """Collects outcomes of dispatching and writes them together."""

    def __init__(self, database: Database, clock: Clock, clear_queue_marks: ClearQueueMarks) -> None:
        self._database = database
        self._clock = clock
        self._clear_queue_marks = clear_queue_marks
        self._waiting = Dispatched()
        self._has_work = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to write."""
        self._task = keep_running(self._run, name="dispatch-marks")

    def add(self, result: Dispatched) -> None:
        """Note an outcome; it is written within a moment."""
        self._waiting.done |= result.done
        self._waiting.gone_queues |= result.gone_queues
        if self._waiting.done or self._waiting.gone_queues:
            self._has_work.set()

    def add_gone_queue(self, user_id: UUID, generation: int) -> None:
        """Note that a user's queue does not exist."""
        self.add(Dispatched(gone_queues={(user_id, generation)}))

    async def stop(self) -> None:
        """Write what is left and end."""
        await end_tasks(self._task)
        try:
            await self._flush()
        except Unavailable:
            log.warning("dispatch_marks_not_written", notifications=len(self._waiting.done))

    async def _run(self) -> None:
        while True:
            await self._has_work.wait()
            await self._clock.sleep(_PAUSE)
            try:
                await self._flush()
            except Unavailable:
                await self._clock.sleep(_RETRY_PAUSE)

    async def _flush(self) -> None:
        if not (self._waiting.done or self._waiting.gone_queues):
            return
        failpoints.reach("after_confirm_before_mark")
        taken, self._waiting = self._waiting, Dispatched()
        self._has_work.clear()
        try:
            async with self._database.write() as connection:
                if taken.done:
                    await mark_dispatched(connection, taken.done, now=self._clock.now())
                if taken.gone_queues:
                    await self._clear_queue_marks(connection, taken.gone_queues)
        except BaseException:
            self.add(taken)
            raise
