"""Waiting for a condition with a deadline, never for a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def eventually(look: Callable[[], Awaitable[T]], *, is_good: Callable[[T], bool], within_s: float = 15.0) -> T:
    """Look again and again until what is seen is good; fail with the last thing seen."""
    deadline = time.monotonic() + within_s
    while True:
        seen = await look()
        if is_good(seen):
            return seen
        if time.monotonic() > deadline:
            raise AssertionError(f"still {seen!r} after {within_s:.0f} s")
        await asyncio.sleep(0.05)
