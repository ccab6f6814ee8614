"""The upgrade request that nearly every client sends, read and answered without a library (RFC 6455, section 4.2).

Whatever is not written the usual way (a header twice, another version, an odd list, a body, bytes behind the head) is
left to uvicorn and the library, which know what to answer. A test holds both against each other.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha1
from typing import Final

_END: Final = b"\r\n\r\n"
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_LINE = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ([\x21-\x7e]+(?: [\x21-\x7e]+)*)")
# 16 bytes in base64: the last digit has two bits to say.
_KEY = re.compile(r"[A-Za-z0-9+/]{21}[AQgw]==")
_SUBPROTOCOLS = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:, ?[!#$%&'*+.^_`|~0-9A-Za-z-]+)*")
_CONNECTION: Final = frozenset({"upgrade", "keep-alive, upgrade"})
# A usual head has ten lines and a token of 900 characters.
_MAX_BYTES: Final = 8 * 1024
_MAX_LINES: Final = 64
_OF_BODIES: Final = frozenset({"content-length", "transfer-encoding"})
# Once each, at most: for a second one the library has an answer.
_SINGLE: Final = frozenset(
    {
        "authorization",
        "connection",
        "origin",
        "sec-websocket-key",
        "sec-websocket-protocol",
        "sec-websocket-version",
        "upgrade",
        "user-agent",
    }
)


@dataclass(frozen=True, slots=True)
class PlainUpgrade:
    """A request that may be answered with `make_response`.

    Attributes:
        target: Path and query as sent.
        headers: Those that say anything here, by their names in lower case.
    """

    target: str
    headers: dict[str, str]

    def find(self, name: str) -> list[str]:
        """The header's value, if it was sent."""
        return [self.headers[name]] if name in self.headers else []

    @property
    def offered_subprotocols(self) -> Iterable[str]:
        """In the client's order."""
        return (each.strip() for each in self.headers.get("sec-websocket-protocol", "").split(",") if each)

    def make_response(self, subprotocol: str | None) -> bytes:
        """The answer that completes the handshake."""
        accept = b64encode(sha1(self.headers["sec-websocket-key"].encode() + _GUID).digest())  # noqa: S324 - RFC 6455
        chosen = b"Sec-WebSocket-Protocol: %b\r\n" % subprotocol.encode() if subprotocol is not None else b""
        return (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %b\r\n%b\r\n" % (accept, chosen)
        )


def read_plain_upgrade(data: bytes) -> PlainUpgrade | None:
    """The request in these bytes; None: others are to read them."""
    if len(data) > _MAX_BYTES or not data.isascii() or data.find(_END) != len(data) - len(_END):
        return None
    first, *lines = data[: -len(_END)].decode().split("\r\n")
    if len(lines) > _MAX_LINES:
        return None
    method, _, rest = first.partition(" ")
    target, _, version = rest.partition(" ")
    if method != "GET" or version != "HTTP/1.1" or not target.isprintable():
        return None
    headers: dict[str, str] = {}
    for line in lines:
        found = _LINE.fullmatch(line)
        if found is None:
            return None
        name = found[1].lower()
        if name in _SINGLE:
            if name in headers:
                return None
            headers[name] = found[2]
        elif name in _OF_BODIES:
            return None
    is_usual = (
        headers.get("upgrade", "").lower() == "websocket"
        and headers.get("connection", "").lower() in _CONNECTION
        and headers.get("sec-websocket-version") == "13"
        and _KEY.fullmatch(headers.get("sec-websocket-key", "")) is not None
        and _SUBPROTOCOLS.fullmatch(headers.get("sec-websocket-protocol", "none")) is not None
    )
    return PlainUpgrade(target, headers) if is_usual else None
