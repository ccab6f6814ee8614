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

from auth_service.accounts.mail_actions import do_prune_links, do_send_due_mails
from auth_service.accounts.watch_actions import do_announce_hidden_changes
from auth_service.identity_events.outbox import do_prune_events, do_take_lease
from auth_service.identity_events.relay import Relay
from auth_service.rate_limits.actions import do_prune
from auth_service.tokens.actions import do_prune_tokens
from shared_contracts.ids import new_id
from shared_contracts.service_log import configure_logging

log = structlog.get_logger(__name__)

PRUNE_INTERVAL = timedelta(minutes=10)
MAIL_INTERVAL = timedelta(seconds=1)
WATCH_INTERVAL = timedelta(seconds=1)
LEASE_LIFETIME = timedelta(minutes=1)
"""How long a chore waits when the process that did it dies."""


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
            tasks.create_task(_repeat(_Alone("auth-mails", do_send_due_mails), MAIL_INTERVAL, stop))
            tasks.create_task(_repeat(_Alone("auth-watch", do_announce_hidden_changes), WATCH_INTERVAL, stop))
            tasks.create_task(_repeat(_Alone("auth-pruning", do_prune_all), PRUNE_INTERVAL, stop))


class _Alone:
    """A chore that one of several background processes does, whichever holds the lease."""

    def __init__(self, name: str, chore: Callable[[], object]) -> None:
        self.__name__ = name
        self._chore = chore
        self._holder = new_id().hex

    def __call__(self) -> None:
        """Do the chore, unless another process has it."""
        if do_take_lease(self.__name__, self._holder, LEASE_LIFETIME):
            self._chore()


async def _repeat(chore: _Alone, interval: timedelta, stop: asyncio.Event) -> None:
    """Do a chore again and again, each time `interval` after the last; a database that is away does not end it."""
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1, thread_name_prefix=chore.__name__) as thread:
        while not stop.is_set():
            await loop.run_in_executor(thread, _try, chore)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(interval.total_seconds()):
                    await stop.wait()


def _try(chore: _Alone) -> None:
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
        "links": do_prune_links(),
        "rate_counts": do_prune(),
    }
    if any(counts.values()):
        log.info("old_rows_pruned", **counts)
