"""What dispatch needs from the mailbox; the entrypoints hand it over, because stages do not import each other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.notifications.entity import Notification
from notification_service.notifications.kept import KeptBroadcast, KeptItem


class ClearQueueMarks(Protocol):
    """Forgets queues that turned out not to exist."""

    async def __call__(self, connection: AsyncConnection, gone: Collection[tuple[UUID, int]], /) -> None:
        """Forget them, each (user, queue generation)."""


class KeptSource(Protocol):
    """Reads back what was kept."""

    def items(
        self, connection: AsyncConnection, notification: Notification, now: datetime
    ) -> AsyncIterator[list[KeptItem]]:
        """Items of one notification whose users have a queue, in chunks."""

    async def broadcasts(
        self, connection: AsyncConnection, notifications: Sequence[Notification]
    ) -> list[KeptBroadcast]:
        """Log entries of these notifications."""
