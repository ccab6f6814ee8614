"""Devices of the systems Herald is compared with: each speaks just enough of its protocol, as fast as Herald's does."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import Callable
from typing import Final, cast
from urllib.parse import urlsplit

from typing_extensions import override

OnMessage = Callable[[bytes], None]


class Device(asyncio.Protocol):
    """A WebSocket connection that is ready when its protocol's own handshake is done.

    Attributes:
        ready: Has a result when messages can arrive.
    """

    path = "/"
    subprotocol: str | None = None
    opcode = 1

    def __init__(self, url: str, user_id: str, on_message: OnMessage) -> None:
        self._address = urlsplit(url)
        self._user_id = user_id
        self._on_message = on_message
        self._mask = os.urandom(4)
        self._buffer = b""
        self._is_upgraded = False
        self._transport = cast("asyncio.Transport", None)
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        key = base64.b64encode(os.urandom(16)).decode()
        offered = f"Sec-WebSocket-Protocol: {self.subprotocol}\r\n" if self.subprotocol else ""
        self._transport.write(
            f"GET {self.path.format(user=self._user_id)} HTTP/1.1\r\n"
            f"Host: {self._address.hostname}:{self._address.port}\r\n"
            f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
            f"{offered}\r\n".encode()
        )

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ready.done():
            self.ready.set_exception(ConnectionError("closed before it was ready"))

    @override
    def data_received(self, data: bytes) -> None:
        data = self._buffer + data
        start = 0
        if not self._is_upgraded:
            start = data.find(b"\r\n\r\n") + 4
            if start < 4:
                self._buffer = data
                return
            if not data.startswith(b"HTTP/1.1 101"):
                self._transport.abort()
                return
            self._is_upgraded = True
            self.on_open()
        end = len(data)
        while start + 2 <= end:
            length, body = data[start + 1], start + 2
            if length == 126:
                body += 2
                length = int.from_bytes(data[start + 2 : start + 4], "big") if body <= end else end
            if body + length > end:
                break
            if data[start] & 0x0F == 9:
                self._write(10, b"")
            else:
                self.on_frame(data[body : body + length])
            start = body + length
        self._buffer = data[start:]

    def close(self) -> None:
        """Go without a word."""
        self._transport.abort()

    def write(self, payload: bytes) -> None:
        """Send one message."""
        self._write(self.opcode, payload)

    def _write(self, opcode: int, payload: bytes) -> None:
        length = len(payload)
        head = (
            bytes((0x80 | opcode, 0x80 | length)) if length < 126 else bytes((0x80 | opcode, 0xFE)) + length.to_bytes(2)
        )
        repeated = (self._mask * (length // 4 + 1))[:length]
        masked = (int.from_bytes(payload) ^ int.from_bytes(repeated)).to_bytes(length)
        self._transport.write(head + self._mask + masked)

    def set_ready(self) -> None:
        """Messages can arrive."""
        if not self.ready.done():
            self.ready.set_result(None)

    def on_open(self) -> None:
        """The upgrade is done."""

    def on_frame(self, payload: bytes) -> None:
        """A whole message arrived."""


class PlainDevice(Device):
    """Of the Channels site and the bare one: text as it is."""

    path = "/{user}"

    @override
    def on_open(self) -> None:
        self.set_ready()

    @override
    def on_frame(self, payload: bytes) -> None:
        self._on_message(payload)


class SocketIoDevice(Device):
    """Socket.IO 5 over Engine.IO 4, WebSocket from the start."""

    path = "/socket.io/?EIO=4&transport=websocket"

    @override
    def on_frame(self, payload: bytes) -> None:
        if payload.startswith(b"42"):
            self._on_message(payload)
        elif payload.startswith(b"0{"):
            self.write(b"40" + json.dumps({"user": self._user_id}).encode())
        elif payload.startswith(b"40"):
            self.set_ready()
        elif payload == b"2":
            self.write(b"3")


_CONNECT, _PUBLISH, _SUBACK = 0x10, 0x30, 0x90
_PACKET_ID: Final = 1


class MqttDevice(Device):
    """MQTT 3.1.1 with a persistent session and QoS 1: every message is acknowledged, as by Herald's devices."""

    path = "/ws"
    subprotocol = "mqtt"
    opcode = 2

    @override
    def on_open(self) -> None:
        # No clean session: the broker keeps a durable queue for this client.
        flags = 0xC0
        fields = [self._user_id, self._address.username or "", self._address.password or ""]
        variable = b"\x00\x04MQTT\x04" + bytes((flags,)) + (300).to_bytes(2) + b"".join(map(_text, fields))
        self.write(_packet(_CONNECT, variable))

    @override
    def on_frame(self, payload: bytes) -> None:
        kind = payload[0] & 0xF0
        if kind == _PUBLISH:
            self._on_publish(payload)
        elif kind == 0x20:
            if payload[3]:
                self._transport.abort()
                return
            topic = _text(f"user/{self._user_id}")
            self.write(_packet(0x82, _PACKET_ID.to_bytes(2) + topic + b"\x01"))
        elif kind == _SUBACK:
            self.set_ready()

    def _on_publish(self, payload: bytes) -> None:
        at = 1
        while payload[at] & 0x80:
            at += 1
        topic_end = at + 3 + int.from_bytes(payload[at + 1 : at + 3])
        self._on_message(payload)
        self.write(b"\x40\x02" + payload[topic_end : topic_end + 2])


def _text(value: str) -> bytes:
    encoded = value.encode()
    return len(encoded).to_bytes(2) + encoded


def _packet(kind: int, variable: bytes) -> bytes:
    length, encoded = len(variable), b""
    while True:
        length, digit = divmod(length, 128)
        encoded += bytes((digit | (0x80 if length else 0),))
        if not length:
            return bytes((kind,)) + encoded + variable


DEVICES: dict[str, type[Device]] = {
    "bare": PlainDevice,
    "channels": PlainDevice,
    "socketio": SocketIoDevice,
    "web_mqtt": MqttDevice,
}


async def connect(kind: str, url: str, user_id: str, on_message: OnMessage) -> Device:
    """A device that is ready.

    Raises:
        ConnectionError: Refused, or closed before.
    """
    address = urlsplit(url)
    _, device = await asyncio.get_running_loop().create_connection(
        lambda: DEVICES[kind](url, user_id, on_message), address.hostname or "127.0.0.1", address.port or 80
    )
    await device.ready
    return device
