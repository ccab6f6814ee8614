"""Circuit breakers, one per provider account or endpoint: whoever is down is left alone, and asked again by one probe.

The states are purgatory's (closed, opened, half-opened); kept here are the routes that failed, at most so many, and
that half-open lets one attempt through at a time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from datetime import timedelta
from typing import Final

import structlog
from purgatory.domain.model import HALF_OPENED, OPENED, Context, OpenedState

from notification_service import metrics

log = structlog.get_logger(__name__)

_MAX_ROUTES: Final = 10_000


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
        self._channel = channel
        self._threshold = threshold
        self._open_for_s = open_for.total_seconds()
        self._contexts: OrderedDict[str, Context] = OrderedDict()
        self._probing: set[str] = set()
        self.on_change: Callable[[str, str], None] | None = None

    def try_enter(self, route: str) -> bool:
        """Whether an attempt may be made now. Whoever is let in must call `leave`."""
        context = self._contexts.get(route)
        if context is None:
            return True
        if route in self._probing:
            return False
        try:
            context.handle_new_request()
        except OpenedState:
            return False
        if context.state == HALF_OPENED:
            self._probing.add(route)
        return True

    def leave(self, route: str, *, failed: bool) -> None:
        """Tell how an attempt ended. Only failures of the provider count."""
        self._probing.discard(route)
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
            log.warning("breaker_changed", route=route, state=context.state)
            self._count()
        elif not failed:
            del self._contexts[route]

    def states(self) -> dict[str, str]:
        """State of every route that has failed lately."""
        return {route: context.state for route, context in self._contexts.items()}

    def _remember(self, route: str) -> Context:
        if len(self._contexts) >= _MAX_ROUTES:
            self._contexts.popitem(last=False)
        context = self._contexts[route] = Context(route, self._threshold, self._open_for_s)
        return context

    def _count(self) -> None:
        states = [context.state for context in self._contexts.values()]
        metrics.breakers_open.labels(self._channel).set(states.count(OPENED) + states.count(HALF_OPENED))
