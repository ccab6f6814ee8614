"""WebSocket frames as bytes (RFC 6455, section 5.2), for what is written often; the library does everything else."""

from __future__ import annotations

from typing import Final

_TEXT: Final = 0x81  # FIN and opcode 1
_PING: Final = b"\x89\x00"


def encode_text(payload: bytes) -> bytes:
    """One unmasked text frame."""
    return encode_text_head(len(payload)) + payload


def encode_text_head(length: int) -> bytes:
    """What comes before a payload of this length."""
    if length < 126:
        return bytes((_TEXT, length))
    if length < 65_536:
        return bytes((_TEXT, 126)) + length.to_bytes(2, "big")
    return bytes((_TEXT, 127)) + length.to_bytes(8, "big")


def encode_ping() -> bytes:
    """A ping without a payload."""
    return _PING
