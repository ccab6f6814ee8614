"""Rates and turns: the arithmetic of rate limits (generic cell rate algorithm, ITU-T I.371). Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0}
_RATE = re.compile(r"(?P<scope>[a-z][a-z0-9_]*(?:\.(?:provider|tenant|sender))?)=(?P<count>\d{1,7})/(?P<unit>[smh])")


@dataclass(frozen=True, slots=True)
class Rate:
    """So many per so many seconds. A burst of one second's worth, at least one, passes at once."""

    count: int
    seconds: float

    @property
    def interval_s(self) -> float:
        """Between two turns."""
        return self.seconds / self.count

    @property
    def burst_s(self) -> float:
        """How far the reserved time may run ahead before somebody must wait."""
        return max(0.0, 1.0 - self.interval_s)


def parse_rates(text: str) -> dict[str, Rate]:
    """Read `email=100/s,sms.tenant=60/m`: a channel's limit, or that of each provider, tenant or sender of it.

    Raises:
        ValueError: Names the part that cannot be read.
    """
    rates = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        found = _RATE.fullmatch(part)
        if found is None or not int(found["count"]):
            raise ValueError(f"{part!r} is not like 'email=100/s' or 'sms.tenant=60/m'")
        rates[found["scope"]] = Rate(int(found["count"]), _UNITS[found["unit"]])
    return rates


def take_turn(free_at: float, rate: Rate, now: float) -> tuple[float, float]:
    """Reserve the next turn. Pure.

    Args:
        free_at: When the limit is free, in seconds; 0 for a new one.
        now: In the same seconds.

    Returns:
        The new `free_at`, and how many seconds to wait.
    """
    begin = max(free_at, now)
    return begin + rate.interval_s, max(0.0, begin - now - rate.burst_s)
