"""Broadcasts on this node: put in order once, encoded once, written to many sockets as ready frames."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection
from typing import Final, NamedTuple

from notification_service.clock import Clock
from notification_service.gateway.client import Client
from notification_service.gateway.wire import encode_text_head
from notification_service.notifications.pages import FrameType

_HOLE_WAIT_S: Final = 0.1
# After this many sockets others get their turn: about 2 ms on one core.
_CHUNK: Final = 250


class _Frame(NamedTuple):
    """What all sockets get alike: the frame's type, and what follows its position."""

    type: bytes
    tail: bytes


class BroadcastFeed:
    """Hands each broadcast to every open session of its tenant.

    Two that were published at the same moment may arrive swapped: the later one waits a moment for the earlier. If it
    does not come (its publisher crashed), sessions notice the hole and read it from the log.
    """

    def __init__(self, connections_of: Callable[[str], Collection[Client]], clock: Clock) -> None:
        self._connections_of = connections_of
        self._clock = clock
        self._tops: dict[str, int] = {}
        self._held: dict[str, dict[int, _Frame]] = {}
        self._queue: deque[tuple[str, int, _Frame]] = deque()
        self._is_running = False

    def on_message(self, tenant: str, number: int, body: bytes, type_: str = FrameType.NOTIFICATION) -> None:
        """A broadcast arrived, or what became of an earlier one."""
        tail = b'"redelivered":false,%b' % body[1:] if type_ == FrameType.NOTIFICATION else body[1:]
        self._take(tenant, number, _Frame(type_.encode(), tail))

    def _take(self, tenant: str, number: int, body: _Frame) -> None:
        top = self._tops.get(tenant)
        if top is None or number == top + 1:
            self._advance(tenant, number, body)
        elif number > top:
            held = self._held.setdefault(tenant, {})
            held[number] = body
            if len(held) == 1:
                asyncio.get_running_loop().call_later(_HOLE_WAIT_S, self._give_up_waiting, tenant)

    def _advance(self, tenant: str, number: int, body: _Frame) -> None:
        self._enqueue(tenant, number, body)
        held = self._held.get(tenant)
        while held and (following := held.pop(self._tops[tenant] + 1, None)) is not None:
            self._enqueue(tenant, self._tops[tenant] + 1, following)

    def _give_up_waiting(self, tenant: str) -> None:
        held = self._held.pop(tenant, {})
        for number in sorted(held):
            self._enqueue(tenant, number, held[number])

    def _enqueue(self, tenant: str, number: int, body: _Frame) -> None:
        self._tops[tenant] = number
        self._queue.append((tenant, number, body))
        if not self._is_running:
            self._is_running = True
            self._run_next()

    def _run_next(self) -> None:
        if not self._queue:
            self._is_running = False
            return
        tenant, number, body = self._queue.popleft()
        self._write(number, body, list(self._connections_of(tenant)), 0)

    def _write(self, number: int, body: _Frame, connections: list[Client], start: int) -> None:
        now = self._clock.monotonic()
        tail = b'",%b' % body.tail
        heads: dict[bytes, bytes] = {}
        for connection in connections[start : start + _CHUNK]:
            follower = connection.session.follower
            if not follower.take_broadcast(number, now):
                connection.run(follower.go_on(now))
                continue
            if not connection.takes_ready_frames:
                connection.send_text(
                    b'{"type":"%b","position":"%b.%012x.%012x%b'
                    % (body.type, follower.epoch, number, follower.sent_seq, tail)
                )
                continue
            head = heads.get(follower.epoch)
            if head is None:
                before = b'{"type":"%b","position":"%b.%012x.' % (body.type, follower.epoch, number)
                head = heads[follower.epoch] = encode_text_head(len(before) + 12 + len(tail)) + before
            # Where what is written counts as received, the next tick says so, at most a second later and for all
            # broadcasts of that second: saying it for each costs twice what writing it does.
            connection.write(b"%b%012x%b" % (head, follower.sent_seq, tail))
        if start + _CHUNK < len(connections):
            asyncio.get_running_loop().call_soon(self._write, number, body, connections, start + _CHUNK)
        else:
            asyncio.get_running_loop().call_soon(self._run_next)
