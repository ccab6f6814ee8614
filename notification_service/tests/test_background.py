"""Tasks beside the caller: how they end."""

from __future__ import annotations

import asyncio

import pytest

from notification_service import background
from notification_service.background import end_tasks, keep_running


async def test_tasks_that_were_cancelled_ended_or_never_began_are_all_ended() -> None:
    async def finish() -> None:
        return

    async def fail() -> None:
        raise RuntimeError("already")

    finished, failed = asyncio.create_task(finish()), asyncio.create_task(fail())
    await asyncio.wait([finished, failed])
    waiting = asyncio.create_task(asyncio.Event().wait())
    await end_tasks(finished, None, failed, waiting)
    assert waiting.cancelled()
    await end_tasks()


async def test_a_loop_that_takes_its_cancellation_for_an_error_is_cancelled_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(background, "_ASK_AGAIN_S", 0.05)
    turns = 0

    async def run() -> None:
        nonlocal turns
        turns += 1
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ConnectionResetError("lost at that moment") from None

    task = keep_running(run, name="stubborn")
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await end_tasks(task)
    assert task.cancelled()
    assert turns == 1
