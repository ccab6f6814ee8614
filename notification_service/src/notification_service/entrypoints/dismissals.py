"""Read on one device, gone from the others: what other channels have sent is taken back where they can (X-6)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.channels.follow_ups import ask_for_dismissals
from notification_service.channels.planned import Reach
from notification_service.clock import Clock
from notification_service.mailbox.actions import Action
from notification_service.preferences.repository import find_documents

_DEALT_WITH: Final = frozenset({Action.READ, Action.ARCHIVE, Action.DELETE})


class Dismissals:
    """`mailbox.service.OnChanging`."""

    def __init__(self, reach: Callable[[], Reach], clock: Clock) -> None:
        self._reach = reach
        self._clock = clock

    async def __call__(
        self, connection: AsyncConnection, user_id: UUID, action: Action, ids: Sequence[UUID] | None
    ) -> None:
        """Ask for it, unless the user's `sync_dismissals` is off or no configured channel can."""
        withdrawing = self._reach().withdrawing
        if action not in _DEALT_WITH or not withdrawing:
            return
        document = (await find_documents(connection, [user_id])).get(user_id, {})
        if document.get("sync_dismissals", True):
            await ask_for_dismissals(connection, user_id, ids, withdrawing, now=self._clock.now())
