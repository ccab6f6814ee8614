"""The background process: the relay of identity events, and chores that no request should wait for."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import structlog
from django.conf import settings
from django.db import DatabaseError, connection

from auth_service.identity_events.outbox import do_prune_events
from auth_service.identity_events.relay import Relay
from auth_service.rate_limits.actions import do_prune
from auth_service.tokens.actions import do_prune_tokens
from shared_contracts.service_log import configure_logging

log = structlog.get_logger(__name__)

PRUNE_INTERVAL = timedelta(minutes=10)


def run_background(process: str, *, with_chores: bool) -> None:
    """Run until SIGTERM or SIGINT.

    Args:
        process: Name in the log.
        with_chores: Whether to do more than relay events.
    """
    configure_logging(process, level=settings.HERALD.log_level)
    asyncio.run(_run(with_chores=with_chores))


async def _run(*, with_chores: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, stop.set)
    herald = settings.HERALD
    relay = Relay(herald.amqp_url.get_secret_value(), interval=herald.relay_interval)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(relay.run(stop))
        if with_chores:
            tasks.create_task(_repeat(do_prune_all, PRUNE_INTERVAL, stop))


async def _repeat(chore: Callable[[], None], interval: timedelta, stop: asyncio.Event) -> None:
    """Do a chore again and again, each time `interval` after the last; a database that is away does not end it."""
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1, thread_name_prefix=chore.__name__) as thread:
        while not stop.is_set():
            await loop.run_in_executor(thread, _try, chore)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(interval.total_seconds()):
                    await stop.wait()


def _try(chore: Callable[[], None]) -> None:
    try:
        chore()
    except DatabaseError as error:
        connection.close()
        log.warning("chore_postponed", chore=chore.__name__, error=type(error).__name__)


def do_prune_all() -> None:
    """Delete what is past any use."""
    counts = {
        "events": do_prune_events(settings.HERALD.event_retention),
        "tokens": do_prune_tokens(),
        "rate_counts": do_prune(),
    }
    if any(counts.values()):
        log.info("old_rows_pruned", **counts)
