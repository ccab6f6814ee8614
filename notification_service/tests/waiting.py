"""Waiting for a condition with a deadline, never for a time."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable


async def until(holds: Callable[[], bool] | Callable[[], Awaitable[bool]], *, within_s: float = 20.0) -> None:
    """Return when the condition holds; fail when it does not in time.

    The limit is long because it only matters when a test fails: machines that run tests are often busy.
    """
    deadline = time.monotonic() + within_s
    while True:
        found = holds()
        if inspect.isawaitable(found):
            found = await found
        if found:
            return
        if time.monotonic() > deadline:
            raise AssertionError(f"did not come true within {within_s:.0f} s")
        await asyncio.sleep(0.01)
