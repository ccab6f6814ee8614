"""Leaving in waves: how many clients are sent away at a time, and when they are told to come back. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Final

WAVE_S: Final = 0.25
# Fewer than this many at once trouble nobody.
_SMALLEST_WAVE: Final = 50
_LONGEST_SPREAD_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class DrainPlan:
    """How to send everybody away.

    Attributes:
        wave_size: Clients per wave; waves are a quarter of a second apart.
        after_ms: The earliest moment to come back.
        spread_ms: Clients choose a random moment within this time after it.
    """

    wave_size: int
    after_ms: int
    spread_ms: int


def plan_drain(*, clients: int, other_nodes: int, drain_s: float, handshakes_per_second: int) -> DrainPlan:
    """Spread so many clients over the time there is, and over what the nodes that stay can take in.

    With other nodes they may come back at once; without, there is nobody to come back to for a while.
    """
    waves = max(1, int(drain_s / WAVE_S))
    # Half of what the others admit: they have clients of their own that come and go.
    spread_s = 2 * clients / (handshakes_per_second * max(1, other_nodes))
    return DrainPlan(
        wave_size=max(_SMALLEST_WAVE, ceil(clients / waves)),
        after_ms=0 if other_nodes else 2_000,
        spread_ms=int(1000 * min(_LONGEST_SPREAD_S, max(0.5, spread_s))),
    )
