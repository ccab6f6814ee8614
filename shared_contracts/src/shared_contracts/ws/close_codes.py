"""WebSocket close codes (contract section 5; RFC 6455, section 7.4)."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

MAX_REASON_BYTES: Final = 123
"""A close frame holds at most 125 bytes (RFC 6455, section 5.5), two of them the code."""


class CloseCode(IntEnum):
    """4000 to 4499: reconnect with back-off. 4500 to 4999: do not, until the user acts."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    INVALID_DATA = 1007
    TOO_BIG = 1009
    SERVER_FAULT = 1011
    RESTARTING = 1012
    OVERLOADED = 1013
    TOKEN_EXPIRED = 4401
    NOT_AUTHENTICATED_IN_TIME = 4408
    POSITION_GONE = 4410
    SLOW_CONSUMER = 4412
    TOO_MANY_FRAMES = 4429
    PROTOCOL_BROKEN = 4500
    TOKEN_INVALID = 4501
    ACCOUNT_CLOSED = 4503
    CONNECTION_LIMIT = 4504
    SESSION_REVOKED = 4505

    @property
    def may_reconnect(self) -> bool:
        """Whether a client tries again by itself. Of the standard codes, the client's own mistakes are final."""
        return self < 4500 and self not in _CLIENT_MISTAKES


_CLIENT_MISTAKES = frozenset(
    {
        CloseCode.NORMAL,
        CloseCode.PROTOCOL_ERROR,
        CloseCode.UNSUPPORTED_DATA,
        CloseCode.INVALID_DATA,
        CloseCode.TOO_BIG,
    }
)
