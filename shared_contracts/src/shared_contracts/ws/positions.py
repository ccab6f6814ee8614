"""Positions: how far a device has received its user's stream and the broadcasts.

Opaque to clients. Inside: the epoch of the store, the number of the last broadcast, the number of the last frame of the
user's own stream. The width is fixed, and the user's number comes last, so that a broadcast is encoded once for all
sockets and only the last part differs.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from typing_extensions import override

EPOCH_LENGTH: Final = 8
_NUMBER_LENGTH: Final = 12
_PATTERN = re.compile(rf"([0-9a-f]{{{EPOCH_LENGTH}}})\.([0-9a-f]{{{_NUMBER_LENGTH}}})\.([0-9a-f]{{{_NUMBER_LENGTH}}})")

MAX_NUMBER: Final = 16**_NUMBER_LENGTH - 1
"""About 281 trillion: 9,000 frames a second for a thousand years."""

MAX_POSITION_LENGTH: Final = EPOCH_LENGTH + 2 * (_NUMBER_LENGTH + 1)


class Position(NamedTuple):
    """A point in both streams. Everything up to and including both numbers has been received."""

    epoch: str
    broadcast: int
    seq: int

    @override
    def __str__(self) -> str:
        return f"{self.epoch}.{self.broadcast:012x}.{self.seq:012x}"


def parse_position(text: str) -> Position | None:
    """Read what a client sent back; None when Herald never made it."""
    match = _PATTERN.fullmatch(text)
    if match is None:
        return None
    epoch, broadcast, seq = match.groups()
    return Position(epoch, int(broadcast, 16), int(seq, 16))
