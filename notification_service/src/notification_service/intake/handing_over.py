"""Handing accepted requests to the intake, in the order they were accepted, across an outage of the broker too.

Nobody waits for it: a request that is stored is never lost, because the relay hands over what nobody has. But the relay
comes late. Were what is accepted after an outage published at once, it would overtake what waits for the relay: so this
process keeps what it could not hand over, and everything accepted since, and goes on with that first.
"""

from __future__ import annotations

import itertools
from bisect import insort
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import structlog

from notification_service.background import spawn
from notification_service.broker.publisher import Outcome, Outgoing, Publisher
from notification_service.clock import Clock
from notification_service.errors import Unavailable

log = structlog.get_logger(__name__)

MAX_KEPT_BYTES: Final = 64 * 1024 * 1024
"""Of messages kept, at most: some 50,000 of usual size. What comes after them is the relay's, in its own order."""

_CHUNK: Final = 250
_PATIENCE: Final = timedelta(minutes=1)
_PAUSE: Final = timedelta(milliseconds=500)


class HandingOver:
    """See the module. The order is that of the calls in this process; of two processes, each keeps its own."""

    def __init__(self, publisher: Publisher, clock: Clock, *, max_bytes: int = MAX_KEPT_BYTES) -> None:
        self._publisher = publisher
        self._clock = clock
        self._max_bytes = max_bytes
        self._numbers = itertools.count()
        # Not handed over, with their places in the order of acceptance.
        self._kept: list[tuple[int, Outgoing]] = []
        self._kept_bytes = 0
        self._is_catching_up = False

    def add(self, messages: Sequence[Outgoing]) -> None:
        """Publish these after everything that was added before; returns at once."""
        numbered = [(next(self._numbers), message) for message in messages]
        if self._is_catching_up:
            self._keep(numbered)
        elif numbered:
            spawn(self._publish(numbered), name="hand-over")

    async def _publish(self, numbered: Sequence[tuple[int, Outgoing]]) -> bool:
        """Answers whether all of it is with the broker; what is not is kept."""
        outcomes = await self._publisher.publish_all([message for _, message in numbered])
        # What was returned found no intake: that does not pass by itself, and the relay says so.
        failed = [
            each for each, outcome in zip(numbered, outcomes, strict=True) if outcome in (Outcome.TIMEOUT, Outcome.NACK)
        ]
        self._keep(failed)
        return not failed

    def _keep(self, numbered: Sequence[tuple[int, Outgoing]]) -> None:
        left = 0
        for each in numbered:
            size = _size(each)
            if self._kept_bytes + size > self._max_bytes:
                left += 1
                continue
            insort(self._kept, each, key=_place)
            self._kept_bytes += size
        if left:
            log.warning("left_to_the_relay", notifications=left)
        if self._kept and not self._is_catching_up:
            self._is_catching_up = True
            spawn(self._catch_up(), name="hand-over-again")

    async def _catch_up(self) -> None:
        while self._kept:
            await self._wait_for_the_broker()
            chunk, self._kept = self._kept[:_CHUNK], self._kept[_CHUNK:]
            self._kept_bytes -= sum(map(_size, chunk))
            try:
                is_done = await self._publish(chunk)
            except Exception:
                # Whatever is wrong with one of them: the relay tries them again, and the others go on.
                log.exception("left_to_the_relay", notifications=len(chunk))
                continue
            if not is_done:
                await self._clock.sleep(_PAUSE)
        self._is_catching_up = False

    async def _wait_for_the_broker(self) -> None:
        link = self._publisher.link
        while True:
            try:
                await link.wait_ready(_PATIENCE)
            except Unavailable:
                continue
            if not link.is_blocked:
                return
            await self._clock.sleep(_PAUSE)


def _place(numbered: tuple[int, Outgoing]) -> int:
    return numbered[0]


def _size(numbered: tuple[int, Outgoing]) -> int:
    # Properties and headers, as Python keeps them, are about a kilobyte.
    return len(numbered[1].body) + 1024
