"""A clock tests can set."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

from typing_extensions import override

from notification_service.clock import SystemClock


class SetClock(SystemClock):
    """The machine's clock, set ahead by what was `advance`d; notes every pause it was asked for.

    Args:
        pace: Pauses are this much of what was asked for: 0.01 makes a second a hundredth.
    """

    def __init__(self, *, pace: float = 1.0) -> None:
        self.pauses_s: list[float] = []
        self._pace = pace
        self._ahead = timedelta()

    def advance(self, seconds: float) -> None:
        self._ahead += timedelta(seconds=seconds)

    @override
    def now(self) -> datetime:
        return super().now() + self._ahead

    @override
    def monotonic(self) -> float:
        return super().monotonic() + self._ahead.total_seconds()

    @override
    async def sleep(self, duration: timedelta) -> None:
        self.pauses_s.append(duration.total_seconds())
        await asyncio.sleep(duration.total_seconds() * self._pace)
