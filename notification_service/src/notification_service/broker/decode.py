"""Reading what arrives by AMQP 0-9-1: the parts Herald looks at, in a few microseconds. Pure.

`tests/broker/test_decode.py` shows that the library reads the same.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any, Final, NamedTuple, cast

import structlog
from pamqp import decode as pamqp_decode

log = structlog.get_logger(__name__)

_long = struct.Struct(">q").unpack_from
_unsigned_long = struct.Struct(">Q").unpack_from
_size = struct.Struct(">I").unpack_from


class Properties(NamedTuple):
    """What Herald wants to know of a message's properties."""

    content_type: str | None
    headers: dict[str, Any]
    message_id: str | None
    type: str | None
    app_id: str | None


NOTHING: Final = Properties(None, {}, None, None, None)
# Flags in the order of the properties, the highest first (AMQP 0-9-1, section 4.2.6.1).
_CONTENT_TYPE, _ENCODING, _HEADERS, _DELIVERY_MODE, _PRIORITY = 1 << 15, 1 << 14, 1 << 13, 1 << 12, 1 << 11
_CORRELATION_ID, _REPLY_TO, _EXPIRATION, _MESSAGE_ID = 1 << 10, 1 << 9, 1 << 8, 1 << 7
_TIMESTAMP, _TYPE, _USER_ID, _APP_ID = 1 << 6, 1 << 5, 1 << 4, 1 << 3

_SKIPPED: Final = (_CORRELATION_ID, _REPLY_TO, _EXPIRATION)
_ANY_SKIPPED: Final = _CORRELATION_ID | _REPLY_TO | _EXPIRATION


def read_properties(payload: bytes) -> Properties:  # noqa: C901 - one line for each property, in their order
    """Read a content header's payload.

    Text that is no UTF-8 is replaced, and headers that cannot be read are left out: one message from a stranger must
    not end the connection of everybody.
    """
    flags = payload[12] << 8 | payload[13]
    at = 14
    content_type = message_id = type_ = app_id = None
    headers: dict[str, Any] = {}
    if flags & _CONTENT_TYPE:
        content_type, at = read_known_short(payload, at)
    if flags & _ENCODING:
        at += 1 + payload[at]
    if flags & _HEADERS:
        size = _size(payload, at)[0]
        headers = _read_table(payload, at, at + 4 + size)
        at += 4 + size
    if flags & _DELIVERY_MODE:
        at += 1
    if flags & _PRIORITY:
        at += 1
    for flag in _SKIPPED if flags & _ANY_SKIPPED else ():
        if flags & flag:
            at += 1 + payload[at]
    if flags & _MESSAGE_ID:
        message_id, at = read_short(payload, at)
    if flags & _TIMESTAMP:
        at += 8
    if flags & _TYPE:
        type_, at = read_known_short(payload, at)
    if flags & _USER_ID:
        at += 1 + payload[at]
    if flags & _APP_ID:
        app_id, at = read_known_short(payload, at)
    return Properties(content_type, headers, message_id, type_, app_id)


def _read_table(payload: bytes, start: int, end: int) -> dict[str, Any]:
    table: dict[str, Any] = {}
    at = start + 4
    while at < end:
        name, at = read_known_short(payload, at)
        kind = payload[at]
        if kind == 0x6C:  # l: 64 bits with a sign
            table[name] = _long(payload, at + 1)[0]
            at += 9
        elif kind == 0x53:  # S: text, or bytes that are none
            size = _size(payload, at + 1)[0]
            at += 5 + size
            table[name] = _as_text(payload[at - size : at])
        else:
            return _read_any_table(payload[start:end])
    return table


def _read_any_table(encoded: bytes) -> dict[str, Any]:
    try:
        return cast("dict[str, Any]", pamqp_decode.field_table(encoded)[1])
    except (ValueError, TypeError, LookupError, struct.error) as error:
        log.warning("message_headers_unreadable", problem=f"{type(error).__name__}: {error}")
        return {}


def _as_text(value: bytes) -> str | bytes:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def read_body_size(payload: bytes) -> int:
    """Bytes of the bodies that follow this content header."""
    size: int = _unsigned_long(payload, 4)[0]
    return size


def read_tag(data: bytes, at: int) -> int:
    """A delivery tag."""
    tag: int = _unsigned_long(data, at)[0]
    return tag


def read_short(data: bytes, at: int) -> tuple[str, int]:
    """Text of up to 255 bytes, and where it ends."""
    end = at + 1 + data[at]
    return data[at + 1 : end].decode(errors="replace"), end


def read_known_short(data: bytes, at: int) -> tuple[str, int]:
    """The same for text that comes again and again: it is decoded once."""
    end = at + 1 + data[at]
    return _decode(data[at + 1 : end]), end


@lru_cache(maxsize=4096)
def _decode(value: bytes) -> str:
    return value.decode(errors="replace")
