"""uvicorn with what Herald adds: limits on request heads, and a gateway that drains before the server stops."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Final

import uvicorn
from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

KEEP_ALIVE_S: Final = 75
"""Of an idle connection. Longer than the 60 s of common proxies and clients, so that they close first: a request that
meets the server's own closing is lost without an answer. uvicorn's 5 s are what clients keep theirs for, too."""

HEAD_LIMIT_S: Final = 15.0
"""For the head of a request to be there."""

_MAX_TARGET_BYTES: Final = 32 * 1024
"""Of a request line: 500 ids of 37 bytes in a query fit."""

_MAX_UPGRADE_TARGET_BYTES: Final = 8 * 1024
_MAX_HEADER_BYTES: Final = 8 * 1024
_MAX_HEADERS: Final = 128


class _HeadTooLarge(Exception):
    pass


class LimitedHttp(HttpToolsProtocol):
    """HTTP/1.1 with request heads bounded in size (414, 431) and time: a peer that drips them is cut after 15 s."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._header_count = 0
        self._target_bytes = 0
        self._refusal: HTTPStatus | None = None
        self._head_timer: asyncio.TimerHandle | None = None

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head_timer = self.loop.call_later(HEAD_LIMIT_S, self._cut)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        super().connection_lost(exc)

    @override
    def on_message_begin(self) -> None:
        self._header_count = self._target_bytes = 0
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_LIMIT_S, self._cut)
        super().on_message_begin()

    @override
    def on_url(self, url: bytes) -> None:
        self._target_bytes += len(url)
        is_upgrade = (self.url + url).startswith(b"/ws")
        if self._target_bytes > (_MAX_UPGRADE_TARGET_BYTES if is_upgrade else _MAX_TARGET_BYTES):
            self._refusal = HTTPStatus.REQUEST_URI_TOO_LONG
            raise _HeadTooLarge
        super().on_url(url)

    @override
    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_count += 1
        if self._header_count > _MAX_HEADERS or len(name) + len(value) > _MAX_HEADER_BYTES:
            self._refusal = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            raise _HeadTooLarge
        super().on_header(name, value)

    @override
    def on_headers_complete(self) -> None:
        self._stop_head_timer()
        super().on_headers_complete()

    @override
    def send_400_response(self, msg: str) -> None:
        if self._refusal is None:
            super().send_400_response(msg)
            return
        line = f"HTTP/1.1 {self._refusal.value} {self._refusal.phrase}\r\n"
        self.transport.write(line.encode() + b"Content-Length: 0\r\nConnection: close\r\n\r\n")
        self.transport.close()

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _cut(self) -> None:
        self._head_timer = None
        self.transport.close()


class DrainingServer(uvicorn.Server):
    """A server that lets `before_stop` run, with everything still serving, before it closes anything."""

    def __init__(self, config: uvicorn.Config, before_stop: Callable[[], Awaitable[None]] | None = None) -> None:
        super().__init__(config)
        self._before_stop = before_stop

    @override
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._before_stop is not None:
            # A second signal sets `force_exit`: then nobody waits any longer.
            draining = asyncio.ensure_future(self._before_stop())
            while not draining.done() and not self.force_exit:
                await asyncio.wait([draining], timeout=0.1)
            draining.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await draining
        await super().shutdown(sockets)
