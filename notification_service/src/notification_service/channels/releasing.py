"""A worker's own loop that publishes what waits for room, as fast as its channels have any: in equal parts to all who
wait (X-18), a little at a time, so that whoever comes now is behind few.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import structlog

from notification_service.channels.admission import deal
from notification_service.channels.holding import find_channels_held, find_next_shares, list_tenants_held
from notification_service.channels.queueing import Queueing
from notification_service.clock import Clock
from notification_service.db.engine import Database
from notification_service.errors import Unavailable

log = structlog.get_logger(__name__)

LOOK_INTERVAL: Final = timedelta(milliseconds=500)
"""Between looks for what other processes held back."""

_PAUSE: Final = timedelta(milliseconds=10)
_MAX_TENANTS: Final = 64
_MAX_REMEMBERED: Final = 10_000
_LEAST_PART: Final = 4
"""A quarter of what a channel takes at once is published together: fewer cost a transaction each."""


@dataclass(frozen=True, slots=True)
class Outlet:
    """One channel of this process.

    Attributes:
        most: Deliveries it takes at once.
        find_room: How many more it would take now.
    """

    most: int
    find_room: Callable[[], int]


class Releasing:
    """Releases what waits for room in this process.

    Args:
        outlets: The channels of this process by name.
    """

    def __init__(self, database: Database, queueing: Queueing, clock: Clock, *, outlets: Mapping[str, Outlet]) -> None:
        self._database = database
        self._queueing = queueing
        self._clock = clock
        self._outlets = outlets
        self._held: set[str] = set()
        # Per channel, which tenant had the last turn; per channel and tenant, which of its senders.
        self._last_tenant: dict[str, str] = {}
        self._last_share: OrderedDict[tuple[str, str], str] = OrderedDict()

    async def run(self) -> None:
        """Release for ever."""
        while True:
            try:
                if not self._queueing.is_ready:
                    # What is released now would wait for the sweep; in the table it waits in order.
                    await self._clock.sleep(LOOK_INTERVAL)
                    continue
                if self._held:
                    await self._clock.sleep(_PAUSE)
                else:
                    await self._wait()
                    await self._look()
                for channel in sorted(self._held):
                    await self._release(channel)
            except Unavailable:
                log.warning("release_failed")
                await self._clock.sleep(LOOK_INTERVAL)

    async def _wait(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_INTERVAL.total_seconds()):
                await self._queueing.held.wait()
        self._queueing.held.clear()

    async def _look(self) -> None:
        async with self._database.read() as connection:
            self._held = await find_channels_held(connection, self._outlets)

    async def _release(self, channel: str) -> None:
        outlet = self._outlets[channel]
        room = outlet.find_room()
        if room * _LEAST_PART < outlet.most:
            return
        after = self._last_tenant.pop(channel, "")
        limit = min(room, _MAX_TENANTS)
        async with self._database.read() as connection:
            tenants = await list_tenants_held(connection, channel, after=after, limit=limit)
            if not tenants:
                if not after:
                    self._held.discard(channel)
                return
            wanted = {each: self._last_share.pop((channel, each), "") for each in tenants}
            shares = await find_next_shares(connection, channel, wanted)
        if len(tenants) == limit:
            self._last_tenant[channel] = tenants[-1]
        for tenant, share in shares.items():
            self._last_share[channel, tenant] = share
        while len(self._last_share) > _MAX_REMEMBERED:
            self._last_share.popitem(last=False)
        if shares:  # another worker may have taken them since
            parts = deal(room, list(shares))
            await self._queueing.release(channel, {(tenant, shares[tenant]): part for tenant, part in parts.items()})
