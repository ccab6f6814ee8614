from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

from notification_service.event_types.defaults import UnusableType, defaults_of
from notification_service.notifications.entity import EventTypeDefaults
from shared_contracts.requests import Channel, NotificationRequest, Priority


def row(**changes: Any) -> SimpleNamespace:
    values = {
        "name": "Order",
        "category": "orders",
        "channels": ["in_app"],
        "priority": "high",
        "retention_days": 7,
        "is_active": True,
    }
    return SimpleNamespace(**{**values, **changes})


REQUEST = NotificationRequest(event_type="order.created")


def test_a_type_gives_its_defaults() -> None:
    found = defaults_of(REQUEST, {("default", "order.created"): row()})
    assert found == EventTypeDefaults("Order", "orders", (Channel.IN_APP,), Priority.HIGH, timedelta(days=7))
    bare = defaults_of(REQUEST, {("default", "order.created"): row(channels=None, retention_days=None)})
    assert isinstance(bare, EventTypeDefaults)
    assert (bare.channels, bare.retention) == (None, None)


def test_unknown_inactive_and_foreign_types_cannot_be_used() -> None:
    for types, reason in (
        ({}, "unknown_event_type"),
        ({("other", "order.created"): row()}, "unknown_event_type"),
        ({("default", "order.created"): row(is_active=False)}, "event_type_inactive"),
    ):
        found = defaults_of(REQUEST, types)
        assert isinstance(found, UnusableType)
        assert found.reason == reason


def test_a_message_needs_no_type() -> None:
    assert defaults_of(NotificationRequest(title="t"), {}) == EventTypeDefaults()
    assert defaults_of(NotificationRequest(title="t", event_type="message"), {}) == EventTypeDefaults()
