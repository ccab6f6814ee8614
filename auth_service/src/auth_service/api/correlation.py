"""The correlation id of the request this thread works on."""

from __future__ import annotations

from contextvars import ContextVar

from shared_contracts.ids import new_id

_current: ContextVar[str] = ContextVar("correlation_id", default="")


def get_correlation_id() -> str:
    """The id of the present request; a new one outside of any request."""
    return _current.get() or new_id().hex


def set_correlation_id(value: str) -> None:
    """Begin a request."""
    _current.set(value)
