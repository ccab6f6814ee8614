"""WebSocket connections without a network: what the event loop would call, and what the kernel would be given."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

from builders import WALL_CLOCK, make_identity, make_info
from typing_extensions import override

from notification_service.clock import SystemClock
from notification_service.gateway.connection import Connection, make_protocol_class
from notification_service.gateway.effects import Effect
from notification_service.gateway.fast_upgrade import read_plain_upgrade
from notification_service.gateway.handshake import OriginRule
from notification_service.gateway.node import GatewayNode
from notification_service.gateway.session import Limits
from notification_service.settings import Settings
from shared_contracts.ws.frames import AckMode, Hello

REQUEST = (
    b"GET /ws?ack=%b HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nAuthorization: Bearer t\r\n\r\n"
)


class Wire(asyncio.Transport):
    """What the kernel would be given."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[bytes] = []
        self.waiting = 0
        self.is_aborted = self.is_closed = self.has_ended = False

    @override
    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.pieces.append(bytes(data))

    @property
    def written(self) -> bytes:
        return b"".join(self.pieces)

    @override
    def get_write_buffer_size(self) -> int:
        return self.waiting

    @override
    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high is not None
        assert low is not None

    @override
    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1) if name == "peername" else default

    @override
    def can_write_eof(self) -> bool:
        return True

    @override
    def write_eof(self) -> None:
        self.has_ended = True

    @override
    def abort(self) -> None:
        self.is_aborted = True

    @override
    def close(self) -> None:
        self.is_closed = True


class Node:
    """Notes what connections want done."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.settings, self.clock, self.limits = Settings(), SystemClock(), limits or Limits()
        self.origin_rule = OriginRule(frozenset(), allow_missing=True)
        self.effects: list[Effect] = []
        self.closed: list[Connection] = []
        self.on_effect: Callable[[Effect], None] = self.effects.append

    def admit(self) -> None:
        return None

    def on_opened(self, connection: Connection) -> None:
        pass

    def on_closed(self, connection: Connection) -> None:
        self.closed.append(connection)

    def do(self, _connection: Connection, effect: Effect) -> None:
        self.on_effect(effect)


def connect(
    node: Node, *, ack: AckMode = AckMode.CLIENT, request: bytes | None = None, **info: Any
) -> tuple[Connection, Wire]:
    """A connection of a user who was just identified, with this much of `make_info`, and what it writes."""
    protocol = make_protocol_class(cast("GatewayNode", node))
    connection, wire = protocol(server_state=SimpleNamespace(connections=set())), Wire()
    connection.connection_made(wire)
    data = request or REQUEST % ack.encode()
    if (plain := read_plain_upgrade(data)) is not None:
        connection.upgrade(plain, data)
    else:
        connection.data_received(data)
    hello = Hello(token="t", ack=ack)
    now = node.clock.monotonic()
    connection.run(
        connection.session.on_identified(make_identity(), hello, make_info(**info), now=now, wall_clock=WALL_CLOCK)
    )
    return connection, wire
