"""A token bucket: so many per second, with a burst of two seconds' worth. No I/O."""

from __future__ import annotations

BURST_S = 2.0


class Bucket:
    """`take` answers whether one more is allowed now."""

    __slots__ = ("_level", "_rate", "_updated_at")

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._level = BURST_S * rate
        self._updated_at = now

    def take(self, now: float) -> bool:
        """Take one if there is one."""
        self._level = min(BURST_S * self._rate, self._level + (now - self._updated_at) * self._rate)
        self._updated_at = now
        if self._level < 1:
            return False
        self._level -= 1
        return True

    def wait_s(self) -> float:
        """How long until there is one, as of the last `take`."""
        return max(0.0, (1 - self._level) / self._rate)
