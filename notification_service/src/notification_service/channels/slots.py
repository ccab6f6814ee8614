"""Who is sent for at a provider account or endpoint, and who is next: one that hangs holds nobody else (F12), and one
tenant's or sender's flood does not hold the others (X-18).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Final

_OTHERS: Final = 4
"""How many tenants may fill their part of a route's line before the next one is sent away, too."""


@dataclass(slots=True)
class _Line:
    """Those who wait at one route: tenants take turns, and within a tenant its senders."""

    tenants: OrderedDict[str, OrderedDict[str, deque[asyncio.Future[None]]]] = field(default_factory=OrderedDict)

    def count(self, tenant: str | None = None, sender: str | None = None) -> int:
        chosen = self.tenants.values() if tenant is None else [self.tenants.get(tenant, OrderedDict())]
        return sum(
            len(turns) for senders in chosen for name, turns in senders.items() if sender is None or name == sender
        )

    def add(self, tenant: str, sender: str, turn: asyncio.Future[None]) -> None:
        self.tenants.setdefault(tenant, OrderedDict()).setdefault(sender, deque()).append(turn)

    def take(self) -> asyncio.Future[None] | None:
        """The next one's turn; None: nobody waits."""
        while self.tenants:
            tenant, senders = next(iter(self.tenants.items()))
            sender, turns = next(iter(senders.items()))
            turn = turns.popleft()
            senders.move_to_end(sender)
            self.tenants.move_to_end(tenant)
            if not turns:
                del senders[sender]
            if not senders:
                del self.tenants[tenant]
            if not turn.done():
                return turn
        return None


class RouteSlots:
    """Slots per route in this process. A reservation made now is a place in the route's short line.

    Args:
        per_route: Attempts at the same time. As many of one tenant may wait, three quarters of them of one sender;
            whoever comes then is sent away, so that others need not wait behind them in the queue.
    """

    def __init__(self, per_route: int) -> None:
        self._per_route = per_route
        self._per_sender = max(1, per_route * 3 // 4)
        self._taken: dict[str, int] = {}
        self._lines: dict[str, _Line] = {}

    @property
    def most_of_one(self) -> int:
        """How many of one sender may be sent and stand in line at one route."""
        return self._per_route + self._per_sender

    def try_reserve(self, route: str, tenant: str = "", sender: str = "") -> Reservation | None:
        """A place, or None when the line is full."""
        taken = self._taken.get(route, 0)
        if taken < self._per_route:
            self._taken[route] = taken + 1
            return Reservation(self, route, None)
        if not self.has_place(route, tenant, sender):
            return None
        line = self._lines.setdefault(route, _Line())
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line.add(tenant, sender, turn)
        return Reservation(self, route, turn)

    def has_place(self, route: str, tenant: str = "", sender: str = "") -> bool:
        """Whether a reservation would be made now."""
        line = self._lines.get(route)
        return (
            self._taken.get(route, 0) < self._per_route
            or line is None
            or (
                line.count(tenant, sender) < self._per_sender
                and line.count(tenant) < self._per_route
                and line.count() < _OTHERS * self._per_route
            )
        )

    def give_back(self, route: str) -> None:
        """The next in line takes over."""
        line = self._lines.get(route)
        if line is not None and (turn := line.take()) is not None:
            turn.set_result(None)
            return
        self._lines.pop(route, None)
        left = self._taken[route] - 1
        if left:
            self._taken[route] = left
        else:
            del self._taken[route]


class Reservation:
    """One place. Exactly one `release` belongs to it."""

    __slots__ = ("_route", "_slots", "_turn")

    def __init__(self, slots: RouteSlots, route: str, turn: asyncio.Future[None] | None) -> None:
        self._slots, self._route, self._turn = slots, route, turn

    async def wait(self) -> None:
        """Return when it is this one's turn."""
        if self._turn is not None:
            await self._turn

    def release(self) -> None:
        """Give the place to the next one."""
        if self._turn is not None and (not self._turn.done() or self._turn.cancelled()):
            # It never had its turn: nobody is handed anything, also when whoever waited for it was cancelled.
            self._turn.cancel()
            return
        self._slots.give_back(self._route)
