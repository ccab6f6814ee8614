"""Who reads a new connection: its first bytes tell usual upgrade requests from the rest (docs/decisions/0083)."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, Final, cast

import uvicorn
from typing_extensions import override
from uvicorn.server import ServerState

from notification_service.entrypoints.http_server import HEAD_LIMIT_S, LimitedHttp
from notification_service.gateway.connection import Connection
from notification_service.gateway.fast_upgrade import read_plain_upgrade

# A peer that acknowledges no byte for this long is cut by the kernel, even one that keeps its window shut.
_TCP_USER_TIMEOUT_MS: Final = 30_000
# The kernel would let the buffer of a peer that does not read grow to megabytes.
_KERNEL_SEND_BUFFER_BYTES: Final = 64 * 1024


class FirstBytes(asyncio.Protocol):
    """Given to uvicorn as its HTTP protocol class: sets the socket's limits, looks at what comes first, and hands over.

    A peer that says nothing is cut after 15 s.
    """

    def __init__(self, *, config: uvicorn.Config, server_state: ServerState, **others: Any) -> None:
        self._options = {"config": config, "server_state": server_state, **others}
        self._siblings = cast("set[Any]", server_state.connections)
        self._gateway = cast("type[Connection] | None", config.ws_protocol_class)
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)
        self._timer: asyncio.TimerHandle = cast("asyncio.TimerHandle", None)

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._siblings.add(self)
        raw = transport.get_extra_info("socket")
        if raw is not None and raw.family in (socket.AF_INET, socket.AF_INET6):
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _TCP_USER_TIMEOUT_MS)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _KERNEL_SEND_BUFFER_BYTES)
        self._timer = asyncio.get_running_loop().call_later(HEAD_LIMIT_S, self._transport.close)

    @override
    def data_received(self, data: bytes) -> None:
        self._leave()
        if self._gateway is not None and (plain := read_plain_upgrade(data)) is not None:
            connection = self._gateway(**self._options)
            connection.connection_made(self._transport)
            self._transport.set_protocol(connection)
            connection.upgrade(plain, data)
            return
        http = LimitedHttp(**self._options)
        http.connection_made(self._transport)
        self._transport.set_protocol(http)
        http.data_received(data)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()

    def shutdown(self) -> None:
        """Called by uvicorn when the server stops."""
        self._transport.close()

    def _leave(self) -> None:
        self._timer.cancel()
        self._siblings.discard(self)
