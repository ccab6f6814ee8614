"""How many dead letters wait for somebody, as a metric that an alert rule watches."""

from __future__ import annotations

from datetime import datetime

from notification_service import metrics
from notification_service.db.engine import Database
from notification_service.dead_letters.repository import count_waiting


class Depth:
    """Measures; every scheduler does, so that the metric does not end with one of them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: set[str] = set()

    async def measure(self, _now: datetime) -> None:
        """Count again. A reason of which none is left is told as 0, and not by its absence."""
        async with self._database.read() as connection:
            found = await count_waiting(connection)
        self._known |= found.keys()
        for reason in self._known:
            metrics.dead_letters_waiting.labels(reason).set(found.get(reason, 0))
