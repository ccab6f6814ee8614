"""Tasks that run beside the caller: held until they end, and never failing in silence."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

log = structlog.get_logger(__name__)

_RETRY_S = 1.0
# Longer than a task takes to end: aiormq waits 2 s for a channel, and a link 5 s for its connection.
_ASK_AGAIN_S = 10.0

_running: set[asyncio.Task[Any]] = set()


def spawn(coroutine: Coroutine[Any, Any, Any], *, name: str) -> None:
    """Start a task that nobody waits for. The event loop itself holds tasks weakly only."""
    task = asyncio.get_running_loop().create_task(coroutine, name=name)
    _running.add(task)
    task.add_done_callback(_end)


def _end(task: asyncio.Task[Any]) -> None:
    _running.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("background_task_failed", task=task.get_name(), exc_info=error)


def keep_running(run: Callable[[], Coroutine[Any, Any, None]], *, name: str) -> asyncio.Task[None]:
    """Start a loop that is meant to run until it is cancelled. If it fails, that is logged, and it starts again.

    An unforeseen error in one turn must not end, in silence, what everybody relies on.
    """

    async def run_again_and_again() -> None:
        while True:
            try:
                await run()
            except Exception as error:
                log.error("loop_failed", loop=name, exc_info=error)  # noqa: TRY400
            await asyncio.sleep(_RETRY_S)

    return asyncio.create_task(run_again_and_again(), name=name)


async def end_tasks(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancel these and return when they have ended, however they did; None stands for one that never began.

    One that goes on is cancelled again: a library that answers a cancellation with an error of its own, as a broker
    connection may that is lost at that moment, has swallowed it, and a loop that heals from such errors never ends.
    """
    waiting = {task for task in tasks if task is not None}
    while waiting:
        for task in waiting:
            task.cancel()
        done, waiting = await asyncio.wait(waiting, timeout=_ASK_AGAIN_S)
        for task in done:
            if not task.cancelled():
                task.exception()
        if waiting:
            log.warning("tasks_go_on_after_cancellation", tasks=sorted(task.get_name() for task in waiting))
