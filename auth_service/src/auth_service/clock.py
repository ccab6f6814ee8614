"""The only place that asks what time it is, so that tests can hold the clock still or move it on."""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from uuid import UUID


class FrozenClock:
    """A clock that moves only when told to. Tests get one from `frozen`."""

    def __init__(self, at: datetime) -> None:
        self.at = at

    def advance(self, by: timedelta | float) -> None:
        """Move on by a duration, or by seconds."""
        self.at += by if isinstance(by, timedelta) else timedelta(seconds=by)


_frozen: FrozenClock | None = None


def now() -> datetime:
    """The present, in UTC."""
    return datetime.now(UTC) if _frozen is None else _frozen.at


def timestamp_s() -> int:
    """Whole seconds since 1970: the NumericDate of RFC 7519."""
    return math.floor(now().timestamp())


def new_timed_id() -> UUID:
    """A new UUIDv7 whose time is this clock's, to the millisecond."""
    since_epoch_ms = int(now().timestamp() * 1_000)
    random = secrets.randbits(74)
    # RFC 9562, section 5.7: 48 bits of time, version, 12 random bits, variant, 62 random bits.
    return UUID(int=since_epoch_ms << 80 | 0x7 << 76 | random >> 62 << 64 | 0b10 << 62 | random & (2**62 - 1))


def time_of_id(value: UUID) -> datetime | None:
    """When a UUIDv7 was made, to the millisecond; None for any other kind of UUID."""
    if value.version != 7:
        return None
    return datetime.fromtimestamp((value.int >> 80) / 1_000, UTC)


@contextmanager
def frozen(at: datetime | None = None) -> Iterator[FrozenClock]:
    """Hold the clock still, for every thread of this process. For tests."""
    global _frozen  # noqa: PLW0603 - one clock per process is the point
    before, _frozen = _frozen, FrozenClock(at or datetime.now(UTC).replace(microsecond=0))
    try:
        yield _frozen
    finally:
        _frozen = before
