"""The only place that asks what time it is or sleeps. Pure code takes the time as an argument instead."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """What the shells around the pure code are given; tests give one they can set."""

    def now(self) -> datetime:
        """The time of day, in UTC."""

    def monotonic(self) -> float:
        """Seconds since some moment; never goes back."""

    def cpu_time(self) -> float:
        """Seconds this thread has worked: waiting for a busy machine is not among them."""

    async def sleep(self, duration: timedelta) -> None:
        """Let others run for this long."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """The time of day, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds since some moment; never goes back."""
        return time.monotonic()

    def cpu_time(self) -> float:
        """Seconds this thread has worked: waiting for a busy machine is not among them."""
        return time.thread_time()

    async def sleep(self, duration: timedelta) -> None:
        """Let others run for this long."""
        await asyncio.sleep(duration.total_seconds())


def format_time(moment: datetime) -> str:
    """RFC 3339 in UTC with `Z` and milliseconds."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
