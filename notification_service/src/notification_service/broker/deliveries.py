"""What the broker sends most, read from the wire in bulk: deliveries, returned messages and confirms (AMQP 0-9-1).

The library reads every frame by three awaits, builds objects of all its fields, passes them through two queues and
makes a task of each message, which is three frames. Here the bytes of one read are walked once; frames of the channels
that are tapped go straight to whoever wants them, all others to the library as they came (docs/decisions/0072).
"""

from __future__ import annotations

import asyncio
from struct import Struct
from typing import Any, Final, NamedTuple, Protocol

import structlog
from aiormq.connection import TransportFactory
from aiormq.exceptions import AMQPConnectionError
from typing_extensions import override
from yarl import URL

from notification_service.broker.decode import (
    NOTHING,
    Properties,
    read_body_size,
    read_known_short,
    read_properties,
    read_short,
    read_tag,
)

log = structlog.get_logger(__name__)

_METHOD, _HEADER, _BODY, _HIGHEST_KIND, _END = 1, 2, 3, 8, 0xCE
_DELIVER, _RETURN = b"\x00\x3c\x00\x3c", b"\x00\x3c\x00\x32"
_ACK, _NACK = b"\x00\x3c\x00\x50", b"\x00\x3c\x00\x78"
_HEARTBEAT: Final = b"\x08\x00\x00\x00\x00\x00\x00\xce"
# The library holds a connection to be dead when it sees no frame for three heartbeats; taken frames it does not see.
_LIFE_SIGN_S: Final = 1.0

_frame_head = Struct(">BHI").unpack_from
_FRAME_HEAD_SIZE: Final = 7


class Incoming(NamedTuple):
    """One message as it arrived."""

    body: bytes
    exchange: str
    routing_key: str
    message_id: str | None
    content_type: str | None
    app_id: str | None
    type: str | None
    headers: dict[str, Any]
    is_redelivered: bool
    delivery_tag: int


class Tap(Protocol):
    """Who is given what arrives on one channel. Called while bytes are read: must not block, nor raise."""

    def on_delivery(self, consumer_tag: str, message: Incoming) -> None:
        """A message for a consumer."""

    def on_return(self, message: Incoming) -> None:
        """A mandatory message that no queue took; its confirm follows."""

    def on_confirm(self, tag: int, *, is_multiple: bool, is_ack: bool) -> None:
        """The broker answers for a publish, or for all up to it."""


class TapBase:
    """A tap that wants nothing."""

    def on_delivery(self, consumer_tag: str, message: Incoming) -> None:
        """Ignored."""

    def on_return(self, message: Incoming) -> None:
        """Ignored."""

    def on_confirm(self, tag: int, *, is_multiple: bool, is_ack: bool) -> None:
        """Ignored."""


class _Content:
    """A message whose frames have not all come."""

    __slots__ = (
        "bodies",
        "consumer_tag",
        "delivery_tag",
        "exchange",
        "is_redelivered",
        "left",
        "properties",
        "routing_key",
    )

    def __init__(
        self, consumer_tag: str | None, delivery_tag: int, *, is_redelivered: bool, exchange: str, routing_key: str
    ) -> None:
        self.consumer_tag = consumer_tag
        self.delivery_tag = delivery_tag
        self.is_redelivered = is_redelivered
        self.exchange = exchange
        self.routing_key = routing_key
        self.properties: Properties | None = None
        self.bodies: list[bytes] = []
        self.left = 0


class TappedReader(asyncio.StreamReader):
    """Between the socket and the library; see the module."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._taps: dict[int, Tap] = {}
        self._contents: dict[int, _Content] = {}
        self._rest = b""
        self._is_foreign = False
        self._time = loop.time
        self._passed_at = loop.time()

    def tap(self, channel: int, tap: Tap) -> None:
        """Give what arrives on this channel to `tap` from now on."""
        self._taps[channel] = tap

    def untap(self, channel: int) -> None:
        """The channel is closed; its number may be used again."""
        self._taps.pop(channel, None)
        self._contents.pop(channel, None)

    @override
    def feed_data(self, data: bytes) -> None:  # type: ignore[override]  # transports give bytes
        if self._is_foreign:
            super().feed_data(data)
            return
        if self._rest:
            data = self._rest + data
        passed: list[bytes] = []
        start, size = 0, len(data)
        while start + _FRAME_HEAD_SIZE <= size:
            kind, channel, length = _frame_head(data, start)
            end = start + 8 + length
            if end > size and kind <= _HIGHEST_KIND:
                break
            if kind > _HIGHEST_KIND or data[end - 1] != _END:
                # No AMQP, or no longer: the library finds the words.
                self._is_foreign = True
                passed.append(data[start:])
                start = size
                break
            tap = self._taps.get(channel)
            if tap is None or not self._take(tap, channel, kind, data[start + 7 : end - 1]):
                passed.append(data[start:end])
            start = end
        self._rest = data[start:]
        if passed:
            self._pass(b"".join(passed))
        elif start and self._time() - self._passed_at > _LIFE_SIGN_S:
            self._pass(_HEARTBEAT)

    @override
    def feed_eof(self) -> None:
        if self._rest:
            super().feed_data(self._rest)
            self._rest = b""
        super().feed_eof()

    def _pass(self, data: bytes) -> None:
        self._passed_at = self._time()
        super().feed_data(data)

    def _take(self, tap: Tap, channel: int, kind: int, payload: bytes) -> bool:
        """Whether this frame is one of ours; it is dealt with then."""
        if kind == _METHOD:
            return self._take_method(tap, channel, payload)
        content = self._contents.get(channel)
        if content is None:
            return False
        if kind == _BODY:
            content.bodies.append(payload)
            content.left -= len(payload)
        else:
            content.properties = read_properties(payload)
            content.left = read_body_size(payload)
        if content.left <= 0:
            del self._contents[channel]
            _hand_over(tap, content)
        return True

    def _take_method(self, tap: Tap, channel: int, payload: bytes) -> bool:
        method = payload[:4]
        if method == _DELIVER:
            consumer_tag, at = read_known_short(payload, 4)
            delivery_tag, is_redelivered = read_tag(payload, at), payload[at + 8] & 1 == 1
            exchange, at = read_known_short(payload, at + 9)
            routing_key, _ = read_short(payload, at)
            self._contents[channel] = _Content(
                consumer_tag, delivery_tag, is_redelivered=is_redelivered, exchange=exchange, routing_key=routing_key
            )
        elif method in (_ACK, _NACK):
            try:
                tap.on_confirm(read_tag(payload, 4), is_multiple=payload[12] & 1 == 1, is_ack=method == _ACK)
            except Exception as error:
                log.error("broker_tap_failed", exc_info=error)  # noqa: TRY400
        elif method == _RETURN:
            _, at = read_short(payload, 6)
            exchange, at = read_short(payload, at)
            routing_key, _ = read_short(payload, at)
            self._contents[channel] = _Content(
                None, 0, is_redelivered=False, exchange=exchange, routing_key=routing_key
            )
        else:
            return False
        return True


def _hand_over(tap: Tap, content: _Content) -> None:
    found = content.properties or NOTHING
    bodies = content.bodies
    message = Incoming(
        bodies[0] if len(bodies) == 1 else b"".join(bodies),
        content.exchange,
        content.routing_key,
        found.message_id,
        found.content_type,
        found.app_id,
        found.type,
        found.headers,
        content.is_redelivered,
        content.delivery_tag,
    )
    try:
        if content.consumer_tag is None:
            tap.on_return(message)
        else:
            tap.on_delivery(content.consumer_tag, message)
    except Exception as error:
        # Left to asyncio, this would cut the connection.
        log.error("broker_tap_failed", exc_info=error)  # noqa: TRY400


class TappedTransport(TransportFactory):
    """Makes connections whose reader can be tapped.

    Attributes:
        reader: Of the connection made last.
    """

    reader: TappedReader

    @override
    async def create(self, url: URL, **options: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        provider = options.pop("ssl_context_provider", None)
        context = await provider.get_context() if url.scheme == "amqps" else None
        loop = asyncio.get_running_loop()
        reader = TappedReader(loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        try:
            transport, _ = await loop.create_connection(
                lambda: protocol, url.host or "", url.port or 0, ssl=context, **options
            )
        except OSError as error:
            raise AMQPConnectionError(*error.args) from error
        self.reader = reader
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)
