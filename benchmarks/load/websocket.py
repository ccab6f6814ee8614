"""A WebSocket client that does the least a device must do: read frames, acknowledge, answer pings (RFC 6455)."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import Callable
from typing import Final, cast
from urllib.parse import urlsplit

from typing_extensions import override

_TEXT: Final = 0x81
_POSITION: Final = b'"position":"'
_POSITION_LENGTH: Final = 34
_NOTIFICATION: Final = b'{"type":"notification"'
_SYNCED: Final = b'{"type":"synced"'
_OPCODE_CLOSE, _OPCODE_PING = 8, 9


class Socket(asyncio.Protocol):
    """One device's connection.

    Attributes:
        received: Notifications so far.
        synced_at: When the server said that nothing is missing (`loop.time()`); None before.
        closed: The close code, 0 when the connection just ended; None while it is open.
    """

    __slots__ = (
        "_ack_every",
        "_buffer",
        "_mask",
        "_on_notification",
        "_request",
        "_transport",
        "_unacked",
        "_upgraded",
        "closed",
        "opened",
        "received",
        "synced",
        "synced_at",
    )

    def __init__(self, request: bytes, *, ack_every: int, on_notification: Callable[[Socket, bytes], None]) -> None:
        self._request = request
        self._ack_every = ack_every
        self._on_notification = on_notification
        self._mask = int.from_bytes(os.urandom(4) * 20, "big")
        self._buffer = b""
        self._upgraded = False
        self._unacked = 0
        self._transport = cast("asyncio.Transport", None)
        self.received = 0
        self.synced_at: float | None = None
        self.closed: int | None = None
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[None] = loop.create_future()
        self.synced: asyncio.Future[None] = loop.create_future()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._request)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = self.closed or 0
        for waiter in (self.opened, self.synced):
            if not waiter.done():
                waiter.set_exception(ConnectionError(f"closed with {self.closed}"))
                waiter.exception()  # looked at: whoever waits gets it all the same

    @override
    def data_received(self, data: bytes) -> None:
        if self._buffer:
            data = self._buffer + data
        start = 0
        if not self._upgraded:
            start = self._read_response(data)
            if start == 0:
                self._buffer = data
                return
        end = len(data)
        last: bytes | None = None
        while start + 2 <= end:
            length = data[start + 1]
            body = start + 2
            if length == 126:
                body += 2
                length = int.from_bytes(data[start + 2 : start + 4], "big") if body <= end else end
            if body + length > end:
                break
            payload = data[body : body + length]
            if payload.startswith(_NOTIFICATION):
                self.received += 1
                self._unacked += 1
                last = payload
                self._on_notification(self, payload)
            else:
                self._on_other(data[start] & 0x0F, payload)
            start = body + length
        self._buffer = data[start:] if start < end else b""
        if last is not None and self._unacked >= self._ack_every:
            self._ack(last)

    def close(self) -> None:
        """Go without a word, as most devices do."""
        self._transport.abort()

    def _read_response(self, data: bytes) -> int:
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return 0
        if not data.startswith(b"HTTP/1.1 101"):
            self.closed = 0
            self._transport.abort()
            return len(data)
        self._upgraded = True
        self.opened.set_result(None)
        return end + 4

    def _on_other(self, opcode: int, payload: bytes) -> None:
        if payload.startswith(_SYNCED):
            self.synced_at = asyncio.get_running_loop().time()
            if not self.synced.done():
                self.synced.set_result(None)
        elif opcode == _OPCODE_PING:
            self._transport.write(bytes((0x8A, 0x80)) + os.urandom(4))
        elif opcode == _OPCODE_CLOSE:
            self.closed = int.from_bytes(payload[:2], "big")
            self._transport.abort()

    def _ack(self, payload: bytes) -> None:
        self._unacked = 0
        start = payload.index(_POSITION) + len(_POSITION)
        text = b'{"type":"ack","position":"%b"}' % payload[start : start + _POSITION_LENGTH]
        length = len(text)
        # The mask repeats every four bytes; one long number does it all at once.
        mask = self._mask >> 8 * (80 - length) if length <= 80 else 0
        masked = (int.from_bytes(text, "big") ^ mask).to_bytes(length, "big")
        self._transport.write(bytes((_TEXT, 0x80 | length)) + (self._mask >> 8 * 76).to_bytes(4, "big") + masked)


async def connect(
    url: str,
    token: str,
    *,
    device_id: str,
    on_notification: Callable[[Socket, bytes], None],
    ack_every: int = 1,
) -> Socket:
    """Connect and authenticate by the Authorization header; returns once the server has said `synced`.

    Args:
        url: Of the gateway, `http://...`.
        token: Access token.
        device_id: The device's own name.
        on_notification: Called with every notification's frame.
        ack_every: Acknowledge after so many notifications; 0: the server counts them as received once written.

    Raises:
        ConnectionError: Closed before; the message has the close code.
    """
    address = urlsplit(url)
    key = base64.b64encode(os.urandom(16)).decode()
    mode = "client" if ack_every else "auto"
    request = (
        f"GET /ws?device_id={device_id}&ack={mode} HTTP/1.1\r\nHost: {address.netloc}\r\n"
        f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
        f"Authorization: Bearer {token}\r\n\r\n"
    ).encode()
    _, socket = await asyncio.get_running_loop().create_connection(
        lambda: Socket(request, ack_every=ack_every or 1 << 62, on_notification=on_notification),
        address.hostname or "127.0.0.1",
        address.port or 80,
    )
    await socket.synced
    return socket
