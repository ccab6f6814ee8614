"""Server-sent events: the same session and frames for clients that cannot use WebSockets (contract section 5).

Each frame is one event without a name, so that `EventSource.onmessage` gets it; its `id` is the position, so that a
browser that reconnects sends it as `Last-Event-ID`. What the client says comes over REST.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Final

import orjson
from typing_extensions import override

from notification_service import metrics
from notification_service.gateway.answers import encode
from notification_service.gateway.client import PAUSE_BYTES, Client
from notification_service.gateway.session import Phase
from shared_contracts.ws.close_codes import CloseCode

if TYPE_CHECKING:
    from notification_service.gateway.node import GatewayNode

_PING: Final = b": ping\n\n"
_STUCK_LIMIT_S: Final = 30.0
# Frames of the streams carry their position first; that of the others is looked for by reading them.
_STREAM_FRAME: Final = re.compile(rb'\{"type":"(?:notification|state|recalled|updated)",(?:"position":"([0-9a-f.]+)")?')
_WITH_POSITION: Final = (b'{"type":"welcome"', b'{"type":"synced"', b'{"type":"reset"')


class SseClient(Client):
    """One stream; its task takes what is to be sent from `chunks`."""

    transport_name = "sse"
    takes_ready_frames = False

    def __init__(self, node: GatewayNode) -> None:
        super().__init__(node)
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._taken_bytes = 0
        self._is_paused = False
        self._stuck_since: float | None = None
        self._has_output = asyncio.Event()
        self.ended_with: CloseCode | None = None

    async def wait_started(self) -> CloseCode | None:
        """Return once the first frame is there; the close code when it was refused instead."""
        await self._has_output.wait()
        return self.ended_with

    async def chunks(self) -> AsyncIterator[bytes]:
        """What is to be sent, until the stream ends."""
        while True:
            while self._waiting:
                chunk = b"".join(self._waiting)
                self._waiting.clear()
                self._taken_bytes, self._waiting_bytes = self._waiting_bytes, 0
                yield chunk
                # Asked for more: the chunk is with the kernel, so the peer is there.
                self._taken_bytes = 0
                now = self.node.clock.monotonic()
                self.session.on_heard(now)
                if self._is_paused and self.is_writable:
                    self._is_paused = False
                    self.run(self.session.follower.resume(now))
                if self.session.follower.acks_by_itself:
                    self.acknowledge_written()
            if self.ended_with is not None:
                return
            self._has_output.clear()
            await self._has_output.wait()

    def lose(self) -> None:
        """The stream is over, whoever ended it."""
        if self.session.phase is not Phase.CLOSED:
            self.session.close(CloseCode.GOING_AWAY, "connection lost")
            metrics.ws_closed.labels("lost").inc()
        self.ended_with = self.ended_with or CloseCode.GOING_AWAY
        self.node.on_closed(self)

    @override
    def tick(self) -> None:
        now = self.node.clock.monotonic()
        if self.waiting_bytes == 0:
            self._stuck_since = None
        elif self._stuck_since is None:
            self._stuck_since = now
        elif now - self._stuck_since > _STUCK_LIMIT_S:
            self.run(self.session.close(CloseCode.SLOW_CONSUMER, "the peer does not read"))
        super().tick()

    @property
    @override
    def is_writable(self) -> bool:
        return self.ended_with is None

    @property
    @override
    def waiting_bytes(self) -> int:
        return self._waiting_bytes + self._taken_bytes

    @override
    def send_texts(self, texts: Sequence[bytes]) -> None:
        for text in texts:
            self._send(text)

    def _send(self, text: bytes) -> None:
        if text.startswith(b'{"type":"reconnect"'):
            said = orjson.loads(text)
            # A browser waits this long before it reconnects: spread here, because it would not.
            retry_ms = int(said["after_ms"] + random.random() * said["spread_ms"])  # noqa: S311 - no secret
            self._put(b"retry: %d\n" % retry_ms)
        self._put(encode_event(text))
        if self.waiting_bytes > PAUSE_BYTES and not self._is_paused:
            self._is_paused = True
            self.session.follower.pause()
        if self.waiting_bytes > self.node.settings.max_send_buffer_bytes:
            self.run(self.session.close(CloseCode.SLOW_CONSUMER, "the peer does not read"))

    @override
    def send_ping(self) -> None:
        self._put(_PING)

    @override
    def write(self, data: bytes) -> None:
        raise AssertionError("ready WebSocket frames are not for event streams")

    @override
    def end(self, code: CloseCode, reason: str) -> None:
        if self.ended_with is None:
            metrics.ws_closed.labels(str(int(code))).inc()
            self._put(encode_event(encode("close", code=int(code), reason=reason)))
            self.ended_with = code
            self._has_output.set()

    def _put(self, chunk: bytes) -> None:
        if self.ended_with is None:
            self._waiting.append(chunk)
            self._waiting_bytes += len(chunk)
            self._has_output.set()


def encode_event(text: bytes) -> bytes:
    """One event. JSON as it is written here holds no line break, so one `data` line is enough."""
    position = _find_position(text)
    return b"id: %b\ndata: %b\n\n" % (position, text) if position else b"data: %b\n\n" % text


def _find_position(text: bytes) -> bytes | None:
    if (found := _STREAM_FRAME.match(text)) is not None:
        return found[1]
    if text.startswith(_WITH_POSITION):
        return str(orjson.loads(text)["position"]).encode()
    return None
