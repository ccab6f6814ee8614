"""Broadcasts on this node: put in order once, encoded once, written to many sockets as ready frames.

Those that wait for their turn go together: each socket gets one write for all of them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Final, NamedTuple

from notification_service.clock import Clock
from notification_service.gateway.client import Client
from notification_service.gateway.wire import encode_text_head
from notification_service.notifications.pages import FrameType

_HOLE_WAIT_S: Final = 0.1
# Broadcasts written as one: a write costs twice what putting a frame together does. Less than what pauses a socket.
_RUN_FRAMES: Final = 32
_RUN_BYTES: Final = 64 * 1024
# After this many sockets others get their turn: about 2 ms on one core.
_CHUNK: Final = 250


class _Frame(NamedTuple):
    """One broadcast, and what all sockets of its tenant get alike."""

    tenant: str
    number: int
    type: bytes
    tail: bytes
    """What follows the position."""


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
        self._queue: deque[_Frame] = deque()
        self._is_running = False

    def on_message(self, tenant: str, number: int, body: bytes, type_: str = FrameType.NOTIFICATION) -> None:
        """A broadcast arrived, or what became of an earlier one."""
        tail = b'"redelivered":false,%b' % body[1:] if type_ == FrameType.NOTIFICATION else body[1:]
        self._take(_Frame(tenant, number, type_.encode(), b'",%b' % tail))

    def _take(self, frame: _Frame) -> None:
        tenant, number = frame.tenant, frame.number
        top = self._tops.get(tenant)
        if top is None or number == top + 1:
            self._advance(frame)
        elif number > top:
            held = self._held.setdefault(tenant, {})
            held[number] = frame
            if len(held) == 1:
                asyncio.get_running_loop().call_later(_HOLE_WAIT_S, self._give_up_waiting, tenant)

    def _advance(self, frame: _Frame) -> None:
        self._enqueue(frame)
        held = self._held.get(frame.tenant)
        while held and (following := held.pop(self._tops[frame.tenant] + 1, None)) is not None:
            self._enqueue(following)

    def _give_up_waiting(self, tenant: str) -> None:
        held = self._held.pop(tenant, {})
        for number in sorted(held):
            self._enqueue(held[number])

    def _enqueue(self, frame: _Frame) -> None:
        self._tops[frame.tenant] = frame.number
        self._queue.append(frame)
        if not self._is_running:
            self._is_running = True
            # Not at once: what came from the broker in the same piece goes with it.
            asyncio.get_running_loop().call_soon(self._run_next)

    def _run_next(self) -> None:
        if not self._queue:
            self._is_running = False
            return
        run = self._take_run()
        self._write(run, list(self._connections_of(run[0].tenant)), 0)

    def _take_run(self) -> list[_Frame]:
        """The next broadcasts of one tenant, without a hole between them."""
        run = [self._queue.popleft()]
        size = len(run[0].tail)
        while self._queue and len(run) < _RUN_FRAMES:
            following = self._queue[0]
            size += len(following.tail)
            if following.tenant != run[0].tenant or following.number != run[-1].number + 1 or size > _RUN_BYTES:
                break
            run.append(self._queue.popleft())
        return run

    def _write(self, run: Sequence[_Frame], connections: list[Client], start: int) -> None:
        now = self._clock.monotonic()
        first, last = run[0].number, run[-1].number
        # What all devices get whose streams have the same epoch, in pieces; between them goes how far each one's own
        # stream was sent.
        pieces: dict[bytes, list[bytes]] = {}
        for connection in connections[start : start + _CHUNK]:
            follower = connection.session.follower
            if not (connection.takes_ready_frames and follower.take_broadcasts(first, last, now)):
                _write_one_by_one(run, connection, now)
                continue
            ready = pieces.get(follower.epoch)
            if ready is None:
                ready = pieces[follower.epoch] = _prepare(run, follower.epoch)
            # Where what is written counts as received, the next tick says so, at most a second later and for all
            # broadcasts of that second: saying it for each costs twice what writing it does.
            connection.write((b"%012x" % follower.sent_seq).join(ready))
        if start + _CHUNK < len(connections):
            asyncio.get_running_loop().call_soon(self._write, run, connections, start + _CHUNK)
        else:
            asyncio.get_running_loop().call_soon(self._run_next)


def _prepare(run: Sequence[_Frame], epoch: bytes) -> list[bytes]:
    """The frames of these broadcasts in a row, cut where a device's own number (12 hexadecimal digits) goes."""
    pieces = [b""]
    for frame in run:
        before = _start(frame, epoch)
        pieces[-1] += encode_text_head(len(before) + 12 + len(frame.tail)) + before
        pieces.append(frame.tail)
    return pieces


def _write_one_by_one(run: Sequence[_Frame], connection: Client, now: float) -> None:
    """To a device that is not ready for all of them, or whose frames are not those of WebSockets."""
    follower = connection.session.follower
    for frame in run:
        if follower.take_broadcasts(frame.number, frame.number, now):
            connection.send_text(b"%b%012x%b" % (_start(frame, follower.epoch), follower.sent_seq, frame.tail))
        else:
            connection.run(follower.go_on(now))


def _start(frame: _Frame, epoch: bytes) -> bytes:
    return b'{"type":"%b","position":"%b.%012x.' % (frame.type, epoch, frame.number)
