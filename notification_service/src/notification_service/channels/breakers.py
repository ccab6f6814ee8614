"""Circuit breakers, one per provider account or endpoint: whoever is down is left alone, and asked again by one probe.

The states are purgatory's (closed, opened, half-opened); kept here are the routes that failed, at most so many, and
that half-open lets one attempt through at a time.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import structlog
from purgatory.domain.model import CLOSED, HALF_OPENED, OPENED, Context, OpenedState

from notification_service import metrics

log = structlog.get_logger(__name__)

_MAX_ROUTES: Final = 10_000


@dataclass(frozen=True, slots=True)
class Entry:
    """The right to make one attempt; `is_probe`: it alone decides whether the breaker closes."""

    route: str
    is_probe: bool = False


class _AttemptFailed(Exception):
    """Told to the breaker in place of the real error."""


class Breakers:
    """The breakers of one channel in this process.

    Args:
        channel: For the metric.
        threshold: Failures in a row that open a breaker.
        open_for: How long nothing is sent then, before a probe.
    """

    def __init__(self, channel: str, *, threshold: int, open_for: timedelta) -> None:
        self.channel = channel
        self._threshold = threshold
        self._open_for_s = open_for.total_seconds()
        self._contexts: OrderedDict[str, Context] = OrderedDict()
        self._probing: set[str] = set()
        # Routes whose state is another than was last told to whoever empties this.
        self.changed: set[str] = set()
        self._since: dict[str, datetime] = {}

    def try_enter(self, route: str) -> Entry | None:
        """An entry when an attempt may be made now, to be given to `leave`; None: leave the provider alone."""
        context = self._contexts.get(route)
        if context is None:
            return Entry(route)
        if route in self._probing:
            return None
        before = context.state
        try:
            context.handle_new_request()
        except OpenedState:
            return None
        is_probe = context.state == HALF_OPENED
        if is_probe:
            self._probing.add(route)
        if context.state != before:
            self._change(context)
        return Entry(route, is_probe=is_probe)

    def leave(self, entry: Entry, *, failed: bool) -> None:
        """Tell how an attempt ended. Only failures of the provider count."""
        route = entry.route
        if entry.is_probe:
            self._probing.discard(route)
        elif route in self._probing:
            # It began before the breaker opened: what it says is old, the probe decides.
            return
        context = self._contexts.get(route)
        if context is None:
            # Routes that never failed are not remembered.
            if not failed:
                return
            context = self._remember(route)
        before = context.state
        if failed:
            context.handle_exception(_AttemptFailed())
        else:
            context.handle_end_request()
        context.messages.clear()
        if context.state != before:
            self._change(context)
        if not failed and context.state == CLOSED:
            del self._contexts[route]

    def not_closed(self, now: datetime) -> dict[str, tuple[str, datetime]]:
        """State of every route that is left alone, and since when."""
        return {
            route: (context.state, self._since.setdefault(route, now))
            for route, context in self._contexts.items()
            if context.state != CLOSED
        }

    def states(self) -> dict[str, str]:
        """State of every route that has failed lately."""
        return {route: context.state for route, context in self._contexts.items()}

    def _remember(self, route: str) -> Context:
        if len(self._contexts) >= _MAX_ROUTES:
            self._contexts.popitem(last=False)
        context = self._contexts[route] = Context(route, self._threshold, self._open_for_s)
        return context

    def _change(self, context: Context) -> None:
        log.warning("breaker_changed", route=context.name, state=context.state)
        metrics.breaker_changes.labels(self.channel, context.state).inc()
        states = [each.state for each in self._contexts.values()]
        metrics.breakers_open.labels(self.channel).set(states.count(OPENED) + states.count(HALF_OPENED))
        self._since.pop(context.name, None)
        self.changed.add(context.name)
