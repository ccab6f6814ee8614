"""Whose queues were bound a moment ago: RabbitMQ spends six times as long on a binding that exists as on a queue."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from uuid import UUID

from notification_service.clock import Clock

# 10 min. Somebody may take a binding away, or a cluster lose it when it heals; until then nobody here would notice.
_LIFE_S: Final = 600.0
_MAX: Final = 100_000
"""Users remembered, 150 bytes each; the oldest are forgotten first."""


class BoundQueues:
    """Of one connection; a queue that turns out to be gone is forgotten, with its binding."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since: dict[UUID, float] = {}

    def find(self, user_ids: Iterable[UUID]) -> set[UUID]:
        """Those of these users whose queues were bound lately."""
        oldest = self._clock.monotonic() - _LIFE_S
        return {each for each in user_ids if self._since.get(each, oldest) > oldest}

    def note(self, user_ids: Iterable[UUID]) -> None:
        """These were bound just now."""
        now = self._clock.monotonic()
        for user_id in user_ids:
            # At the end, so that the order is that of the times.
            self._since.pop(user_id, None)
            self._since[user_id] = now
        while len(self._since) > _MAX:
            del self._since[next(iter(self._since))]

    def forget(self, user_ids: Iterable[UUID]) -> None:
        """One of these queues may be gone."""
        for user_id in user_ids:
            self._since.pop(user_id, None)

    def clear(self) -> None:
        """The connection is lost: the broker may have started empty."""
        self._since.clear()
