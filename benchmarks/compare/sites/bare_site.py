"""What Python and the kernel take for a broadcast at least: every line that comes in is written to every open socket,
as a ready frame, by a loop without anything around it. Nobody is asked who they are, and nothing is kept.

bare_site.py <port of the devices> <port of the lines>
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import sys
from typing import cast

import uvloop
from typing_extensions import override

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_OPEN: set[asyncio.Transport] = set()


class Device(asyncio.Protocol):
    """A socket; what it sends after its upgrade is not looked at."""

    def __init__(self) -> None:
        self._transport = cast("asyncio.Transport", None)
        self._head = b""

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    @override
    def data_received(self, data: bytes) -> None:
        if self._transport in _OPEN:
            return
        self._head += data
        if not self._head.endswith(b"\r\n\r\n"):
            return
        headers = dict(line.split(b": ", 1) for line in self._head.split(b"\r\n")[1:] if line)
        accept = base64.b64encode(hashlib.sha1(headers[b"Sec-WebSocket-Key"] + _GUID).digest())  # noqa: S324 - RFC 6455
        self._transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept
        )
        _OPEN.add(self._transport)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        _OPEN.discard(self._transport)


async def take(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    """Write each line to everybody."""
    while line := await reader.readline():
        text = line.rstrip(b"\n")
        frame = b"\x81\x7e" + len(text).to_bytes(2) + text
        for transport in tuple(_OPEN):
            transport.write(frame)


async def serve(device_port: int, line_port: int) -> None:
    """Run both servers."""
    loop = asyncio.get_running_loop()
    await loop.create_server(Device, "127.0.0.1", device_port, backlog=4096)
    lines = await asyncio.start_server(take, "127.0.0.1", line_port, limit=1 << 20)
    await lines.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), int(sys.argv[2])))
