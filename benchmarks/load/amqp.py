"""A backend service that publishes with confirms, at a few microseconds per message: frames are prepared beforehand."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, cast
from urllib.parse import unquote, urlsplit

from pamqp import commands, frame, header
from typing_extensions import override

_CHANNEL: Final = 1
_ACK: Final = (60, 80)
_SOME_ID: Final = b"00000000-0000-0000-0000-000000000000"


class Publisher(asyncio.Protocol):
    """One connection with one channel in confirm mode.

    Attributes:
        unconfirmed: Messages that the broker has not taken yet.
    """

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self._login = f"\0{unquote(address.username or '')}\0{unquote(address.password or '')}"
        self._vhost = unquote(address.path[1:]) or "/"
        self._transport = cast("asyncio.Transport", None)
        self._buffer = b""
        self._next_tag = 1
        self._confirmed = 0
        self._out_of_order: set[int] = set()
        self._waiting: list[bytes] = []
        self._templates: dict[tuple[str, str], tuple[bytes, bytes, int]] = {}
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def unconfirmed(self) -> int:
        """Published and not confirmed yet."""
        return self._next_tag - 1 - self._confirmed - len(self._out_of_order)

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(b"AMQP\x00\x00\x09\x01")

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ready.done():
            self.ready.set_exception(ConnectionError("the broker closed the connection"))

    @override
    def data_received(self, data: bytes) -> None:
        data = self._buffer + data
        start, end = 0, len(data)
        while start + 7 <= end:
            size = int.from_bytes(data[start + 3 : start + 7], "big")
            if start + size + 8 > end:
                break
            if data[start] == 1:
                self._on_method(data, start, start + size + 8)
            start += size + 8
        self._buffer = data[start:]

    def publish(self, exchange: str, routing_key: str, body: bytes) -> str:
        """Publish one message with the next write; answers its id."""
        message_id = str(uuid.uuid4())
        method, properties, at = self._template(exchange, routing_key)
        size = len(body)
        # The body's size stands 8 bytes into the header frame's payload, behind class and weight.
        properties = b"%b%b%b%b%b" % (
            properties[:11],
            size.to_bytes(8, "big"),
            properties[19:at],
            message_id.encode(),
            properties[at + 36 :],
        )
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._flush)
        self._waiting.append(b"%b%b\x03\x00\x01%b%b\xce" % (method, properties, size.to_bytes(4, "big"), body))
        self._next_tag += 1
        return message_id

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()

    def _flush(self) -> None:
        self._transport.write(b"".join(self._waiting))
        self._waiting.clear()

    def _template(self, exchange: str, routing_key: str) -> tuple[bytes, bytes, int]:
        known = self._templates.get((exchange, routing_key))
        if known is None:
            method = frame.marshal(commands.Basic.Publish(exchange=exchange, routing_key=routing_key), _CHANNEL)
            properties = commands.Basic.Properties(
                content_type="application/json",
                delivery_mode=2,
                message_id=_SOME_ID.decode(),
                app_id="bench",
                timestamp=datetime.now(UTC),
            )
            encoded = frame.marshal(header.ContentHeader(0, 0, properties), _CHANNEL)
            known = self._templates[exchange, routing_key] = (method, encoded, encoded.index(_SOME_ID))
        return known

    def _on_method(self, data: bytes, start: int, end: int) -> None:
        if self.ready.done() and data[start + 8] == _ACK[0] and data[start + 10] == _ACK[1]:
            self._on_confirm(int.from_bytes(data[start + 11 : start + 19], "big"), is_multiple=bool(data[start + 19]))
            return
        _, _, method = frame.unmarshal(data[start:end])
        self._on_set_up(method)

    def _on_confirm(self, tag: int, *, is_multiple: bool) -> None:
        if is_multiple:
            self._confirmed = max(self._confirmed, tag)
            self._out_of_order = {each for each in self._out_of_order if each > self._confirmed}
        else:
            self._out_of_order.add(tag)
        while self._confirmed + 1 in self._out_of_order:
            self._confirmed += 1
            self._out_of_order.discard(self._confirmed)

    def _on_set_up(self, method: Any) -> None:
        answers: dict[type, Callable[[], list[tuple[int, Any]]]] = {
            commands.Connection.Start: lambda: [(0, commands.Connection.StartOk({}, "PLAIN", self._login, "en_US"))],
            commands.Connection.Tune: lambda: [
                (0, commands.Connection.TuneOk(method.channel_max, method.frame_max, 0)),
                (0, commands.Connection.Open(self._vhost)),
            ],
            commands.Connection.OpenOk: lambda: [(_CHANNEL, commands.Channel.Open())],
            commands.Channel.OpenOk: lambda: [(_CHANNEL, commands.Confirm.Select())],
        }
        for channel, answer in answers.get(type(method), list)():
            self._transport.write(frame.marshal(answer, channel))
        if isinstance(method, commands.Confirm.SelectOk):
            self.ready.set_result(None)
        elif isinstance(method, commands.Connection.Close | commands.Channel.Close):
            raise ConnectionError(f"the broker closed: {method.reply_text}")


async def connect(url: str) -> Publisher:
    """A publisher that is ready."""
    address = urlsplit(url)
    _, publisher = await asyncio.get_running_loop().create_connection(
        lambda: Publisher(url), address.hostname or "127.0.0.1", address.port or 5672
    )
    await publisher.ready
    return publisher
