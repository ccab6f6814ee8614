"""How many attempts one provider account or endpoint gets at a time, so that one that hangs holds nobody else (F12)."""

from __future__ import annotations

import asyncio
from collections import deque


class RouteSlots:
    """Slots per route in this process. A reservation made now is a place in the route's short line.

    Args:
        per_route: Attempts at the same time; as many more may wait. Whoever comes then is sent away.
    """

    def __init__(self, per_route: int) -> None:
        self._per_route = per_route
        self._taken: dict[str, int] = {}
        self._lines: dict[str, deque[asyncio.Future[None]]] = {}

    def try_reserve(self, route: str) -> Reservation | None:
        """A place, or None when the line is full."""
        taken = self._taken.get(route, 0)
        if taken < self._per_route:
            self._taken[route] = taken + 1
            return Reservation(self, route, None)
        line = self._lines.setdefault(route, deque())
        if len(line) >= self._per_route:
            return None
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line.append(turn)
        return Reservation(self, route, turn)

    def give_back(self, route: str) -> None:
        """The next in line takes over."""
        line = self._lines.get(route)
        while line:
            turn = line.popleft()
            if not turn.done():
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
