"""Who goes into a channel's queue at once: the first few of each sender. The rest of a flood waits in the table, where
the order of a queue does not bind it, until a worker has room (X-18; docs/decisions/0077).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from notification_service.rates import Rate, take_turn

AT_ONCE: Final = Rate(32, 1.0)
"""Of one sender over one channel, from one process: as many as an account of a provider usually takes at a time."""

_MAX_AHEAD_S: Final = 10.0
"""How long a sender must keep quiet after a flood of any size, at most, until its deliveries go at once again."""

_MAX_SHARES: Final = 100_000


def make_share(tenant: str, sender: str) -> str:
    """The name under which one sender's deliveries are counted: it gets an equal part of what there is."""
    return f"{tenant}:{sender}"[:200]


class Admission:
    """Counts what each share sends. In this process: several of them let in as many times as much."""

    def __init__(self) -> None:
        self._free_at: OrderedDict[tuple[str, str], float] = OrderedDict()

    def admit(self, channel: str, share: str, now: float) -> bool:
        """Whether this one goes at once. Whoever floods goes on counting, and is let in when it has become quiet.

        Args:
            channel: Its channel.
            share: Whose it is.
            now: Monotonic, in seconds.
        """
        key = (channel, share)
        free_at, wait = take_turn(self._free_at.pop(key, 0.0), AT_ONCE, now)
        self._free_at[key] = min(free_at, now + _MAX_AHEAD_S)
        if len(self._free_at) > _MAX_SHARES:
            self._free_at.popitem(last=False)
        return not wait


def deal(room: int, tenants: Sequence[str]) -> dict[str, int]:
    """How many each tenant may send now: equal parts, and the first ones get what is left over. Pure.

    Args:
        room: How many there is room for.
        tenants: Those that have something waiting.
    """
    part, over = divmod(room, len(tenants))
    return {tenant: part + (index < over) for index, tenant in enumerate(tenants) if part or index < over}
